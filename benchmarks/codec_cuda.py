"""All that a first run on a GPU should tell, in one unattended run of ten minutes.

    python -m benchmarks.codec_cuda --out gpu.json
    python -m benchmarks.codec_cuda --rehearse --out rehearsal.json     # every step on the CPU, with a tiny model

Each step (codec_cuda_steps.py) runs in a process of its own, so that a failed kernel fails one step, and has its limit
of time. The file is written anew after every step, and a table beside it (.md). What no time is left for is skipped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
import traceback
import warnings
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # once, and not in every process of a step

from benchmarks.codec_cuda_steps import STEPS, Bench, Step

MINUTES = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with a tiny model: figures mean nothing")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all steps (default: %(default)s)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # to be asked for GPUs is to touch them, without it
    torch.set_num_threads(1)  # threads of torch do not survive the fork below
    began = time.monotonic()
    bench = Bench.rehearsal() if arguments.rehearse else Bench.full()
    results: dict[str, Any] = {}
    for name in arguments.steps:
        left = 60 * arguments.minutes - (time.monotonic() - began)
        step = STEPS[name]
        results[name] = run_apart(step, bench, min(step.seconds, left)) if left > 5 else {"skipped": "no time is left"}
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
        arguments.out.with_suffix(".md").write_text(as_markdown(results))
        print(f"{name}: {summary(results[name])}", flush=True)


def run_apart(step: Step, bench: Bench, limit: float) -> dict[str, Any]:
    """What a step gives, and its seconds; or its error. It has a process of its own, which ends at the limit.

    The process is forked, which is allowed as long as this one never touches the GPU: so the weights, made once, are
    there for every step.
    """
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    began = time.monotonic()
    process = fork.Process(target=_run, args=(step, bench, there))
    process.start()
    there.close()
    try:
        result: dict[str, Any] = (
            here.recv() if here.poll(limit) else {"error": f"not done within its limit of {limit:.0f} s"}
        )
    except EOFError:
        result = {"error": "its process died"}
    process.join(timeout=0 if "error" in result else 5)  # the compiler's own processes may keep it
    process.kill()
    process.join()
    return {**result, "seconds": round(time.monotonic() - began, 2)}


def _run(step: Step, bench: Bench, out: Connection) -> None:
    try:
        result = step.run(bench)
    except Exception as error:
        lines = traceback.format_exc().strip().splitlines()
        result = {"error": f"{type(error).__name__}: {error}", "traceback": lines[-12:]}
    out.send(result)
    out.close()


def as_markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A section for each step: its tables, and a line for each other figure."""
    lines = ["# The codec on a GPU", ""]
    for name, result in results.items():
        lines += [f"## {name}", ""]
        for key, value in result.items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                lines += [*_table(value), ""]
            elif key != "traceback":
                lines.append(f"- {key}: {value}")
        lines.append("")
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    columns = list(rows[0])
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in rows),
    ]


def summary(result: Mapping[str, Any]) -> str:
    figures = {key: value for key, value in result.items() if not isinstance(value, list)}
    return ", ".join(f"{key} {value}" for key, value in figures.items())


if __name__ == "__main__":
    main()
