"""Time and memory to load a full-size random checkpoint from disk, whole or one half, in both precisions.

    python -m benchmarks.codec_loading [FOLDER]

Writes the checkpoint (7.4 GB) into FOLDER (default: a temporary one) first and removes it afterwards. Each load runs
in a fresh process. "Mapped" are file pages that the operating system can take back; "own" is memory that it cannot.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.codec_models import DEPTHS, random_weights, release_config
from moss_tok import MossAudioTokenizerModel

PROBE = """
import json, sys, time, torch
from pathlib import Path
from moss_tok import MossAudioTokenizerModel
def memory(field):
    return next(int(l.split()[1]) / 1024 for l in Path("/proc/self/status").read_text().splitlines() if
    l.startswith(field))
before = memory("VmRSS")
started = time.perf_counter()
model = MossAudioTokenizerModel.from_pretrained(sys.argv[1], parts=sys.argv[2], dtype=sys.argv[3])
loaded = time.perf_counter() - started
peak, own, mapped = memory("VmHWM") - before, memory("RssAnon"), memory("RssFile")
started = time.perf_counter()
if sys.argv[2] != "decoder":
    model.encode(torch.zeros(1, 1, 1920))
else:
    model.decode(torch.zeros(32, 1, 1, dtype=torch.int64))
print(json.dumps([loaded, peak, own, mapped, time.perf_counter() - started, memory("RssAnon"), memory("RssFile")]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="where to put the checkpoint of 7 GB (default: a temporary one)"
    )
    folder = parser.parse_args().folder
    if folder is not None:
        measure(folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        measure(Path(temporary))


def measure(folder: Path) -> None:
    config = release_config(DEPTHS["full"])
    with torch.device("meta"):
        model = MossAudioTokenizerModel(config, set(), "all")
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    count = sum(torch.Size(shape).numel() for shape in shapes.values())
    save_file(random_weights(shapes), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    size = (folder / "model.safetensors").stat().st_size / 1e9
    print(f"{count:,} parameters, {size:.2f} GB on disk (in the page cache)")
    print("| parts | dtype | load s | peak MB | first call s | then own MB | then mapped MB |")
    print("|---|---|---|---|---|---|---|")
    for parts, dtype in (("all", "float32"), ("encoder", "float32"), ("encoder", "bfloat16"), ("decoder", "float32")):
        command = [sys.executable, "-c", PROBE, str(folder), parts, dtype]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        loaded, peak, _, _, first, own, mapped = json.loads(run.stdout)
        print(f"| {parts} | {dtype} | {loaded:.2f} | {peak:.0f} | {first:.2f} | {own:.0f} | {mapped:.0f} |", flush=True)
    for path in (folder / "model.safetensors", folder / "config.json"):
        path.unlink()


if __name__ == "__main__":
    main()
