"""The command that builds the corpus: fetch and unpack the packages, select and break clips, write the packings."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from .clip import PACKINGS
from .credits import write_credits
from .debian import download, unpack
from .defects import break_clips
from .inventory import write_inventory
from .packings import write_folder, write_parquet, write_webdataset
from .selection import select

WRITERS = {"folder": write_folder, "webdataset": write_webdataset, "parquet": write_parquet}


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and build the corpus."""
    parser = argparse.ArgumentParser(description="Build the demo corpus of real audio from Debian packages.")
    parser.add_argument("out_dir", type=Path, help="folder to write the corpus to; must be empty or not exist")
    parser.add_argument("--packages", type=Path, help="folder of already downloaded .deb files (default: download)")
    options = parser.parse_args(arguments)
    if options.out_dir.exists() and (not options.out_dir.is_dir() or any(options.out_dir.iterdir())):
        parser.error(f"{options.out_dir} is not an empty folder")
    with tempfile.TemporaryDirectory() as temporary:
        packages, root = options.packages, Path(temporary, "root")
        if packages is None:
            packages = Path(temporary, "packages")
            packages.mkdir()
            download(packages)
        unpack(packages, root)
        build(root, options.out_dir)


def build(root: Path, corpus: Path) -> None:
    """Write the corpus from the packages unpacked below `root`."""
    clips = [*select(root), *break_clips(root)]
    sources: dict[tuple[str, str], Path] = {}
    for packing in PACKINGS:
        chosen = [clip for clip in clips if clip.packing == packing]
        paths = WRITERS[packing](chosen, corpus / packing)
        sources.update({(packing, key): path for key, path in paths.items()})
    write_inventory(clips, sources, corpus)
    write_credits(clips, root, corpus)
    total = sum(path.stat().st_size for path in corpus.rglob("*") if path.is_file())
    print(f"{len(clips)} clips, {total:,} bytes in {corpus}", file=sys.stderr)
