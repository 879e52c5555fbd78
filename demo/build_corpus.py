"""Build the demo corpus from Debian packages: `python demo/build_corpus.py OUT_DIR`.

Needs a Debian machine (apt-get and dpkg, no root) and the project's environment. The same package files, encoder
libraries and processor family give the same bytes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from corpus_builder.clip import PACKINGS
from corpus_builder.credits import write_credits
from corpus_builder.debian import download, unpack
from corpus_builder.defects import break_clips
from corpus_builder.inventory import write_inventory
from corpus_builder.packings import write_folder, write_parquet, write_webdataset
from corpus_builder.selection import select

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


if __name__ == "__main__":
    main()
