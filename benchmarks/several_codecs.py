"""CPU time of two codecs in one pass, and in a run each: the same clips, the same bytes.

    python -m benchmarks.several_codecs [--clips 60] [--seconds 15] [--repeat 2]

Real FLAC files of 44.1 kHz stereo, and the two embedded codecs, which are so small that reading, decoding and
resampling count beside them. What a pass saves does not depend on the codecs: with large ones it is the same time, and
a smaller part. Everything is in one process with one thread, without Ray; loading the codecs is not counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import soundfile as sf
import torch

from pipeline.config import Config, parse_config
from pipeline.dataset.opening import open_outputs
from pipeline.shard.tokenize import CodecJob, tokenize_shards
from pipeline.steps.encode import load_encoder

MODELS = ("cat-tiny", "cat-speech")


def config_of(clips: Path, output: Path, models: Sequence[str]) -> Config:
    return parse_config(
        {
            "input": {"splits": {"train": [str(clips)]}, "clips_per_shard": 50},
            "output": {"uri": str(output)},
            "models": [{"name": name, "device": "cpu"} for name in models],
        }
    )


def cpu_seconds(config: Config) -> float:
    """CPU time of a run of every shard."""
    outputs = open_outputs(config)
    configs = config.of_each_model()
    codecs = [
        (CodecJob(each, output.record), load_encoder(each.model, output.record.num_quantizers, each.batch.max_frames))
        for each, output in zip(configs, outputs, strict=True)
    ]
    started = time.process_time()
    for spec in outputs[0].specs:
        tokenize_shards(spec, codecs, [None] * len(codecs))
    return time.process_time() - started


def data_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("*/data/**/*.parquet"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--repeat", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "clips").mkdir()
        random = np.random.default_rng(0)
        for number in range(arguments.clips):
            tone = np.sin(np.arange(round(arguments.seconds * 44_100)) * random.uniform(0.01, 0.2))
            noise = random.standard_normal((len(tone), 2)) * 0.03
            sf.write(folder / "clips" / f"{number:04d}.flac", 0.3 * tone[:, None] + noise, 44_100)
        spent: dict[str, list[float]] = {name: [] for name in (*MODELS, "both")}
        for turn in range(arguments.repeat):
            for name in MODELS:
                spent[name].append(cpu_seconds(config_of(folder / "clips", folder / f"alone-{turn}", [name])))
            spent["both"].append(cpu_seconds(config_of(folder / "clips", folder / f"both-{turn}", MODELS)))
            assert data_files(folder / f"alone-{turn}") == data_files(folder / f"both-{turn}")
    print(f"{arguments.clips * arguments.seconds / 60:.0f} minutes of audio, CPU seconds, the median of each:")
    for name, seconds in spent.items():
        print(f"  {name:<12} {median(seconds):8.2f}   ({', '.join(f'{each:.2f}' for each in seconds)})")
    apart = sum(median(spent[name]) for name in MODELS)
    saved = apart - median(spent["both"])
    print(f"two runs {apart:.2f}, one pass {median(spent['both']):.2f}: {saved / apart:.0%} less, the same bytes")


if __name__ == "__main__":
    main()
