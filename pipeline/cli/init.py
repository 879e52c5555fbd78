"""Write an example configuration, NAME.yaml, to change and to give to a command; without NAME, list the examples.

  moss-tok init                 the names, and what each is for
  moss-tok init demo            demo.yaml, with the real audio that it names, in demo/corpus (6 MB)
  moss-tok init librispeech -o speech.yaml

A file that exists is not replaced. Exit status: 0, and 2 if nothing could be written.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from pipeline.cli.exit_status import ExitStatus

HELP = "write an example configuration"

EXAMPLES = Path(__file__).parent.parent / "examples"
"""Installed with the package; in a checkout, links to where the files are."""
CORPUS = "demo/corpus"
"""Where the configuration of the demo looks for its audio."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="one of the examples (default: list them)")
    parser.add_argument("-o", "--out", metavar="FILE", help="the file to write (default: NAME.yaml)")


def run(arguments: argparse.Namespace) -> int:
    from pipeline.formatting import lines_of

    paths = {path.stem: path for path in sorted((EXAMPLES / "configs").glob("*.yaml"))}
    if arguments.name is None:
        print(lines_of({name: _purpose(path) for name, path in paths.items()}))
        return ExitStatus.DONE
    if arguments.name not in paths:
        raise ValueError(f"{arguments.name}: no such example; there are {', '.join(paths)}")
    target = Path(arguments.out or f"{arguments.name}.yaml")
    text = paths[arguments.name].read_text(encoding="utf-8")
    if target.exists():
        raise ValueError(f"{target} exists: name another file with -o")
    if CORPUS in text:
        shutil.copytree(EXAMPLES / "corpus", CORPUS, copy_function=_copy_missing, dirs_exist_ok=True)
        print(f"{CORPUS}: real audio, with its licences")
    with target.open("x", encoding="utf-8") as file:
        file.write(text)
    print(f"{target}: {_purpose(target)}\n\nWhat to do with it:\n\n  {_command(arguments.name, target)}")
    return ExitStatus.DONE


def _purpose(path: Path) -> str:
    """The first line of the file, which is a comment."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def _command(name: str, path: Path) -> str:
    if name.startswith("export_"):
        return f"moss-tok export OUTPUT --to FORMAT --config {path} -o FOLDER"
    return f"moss-tok evaluate --config {path}" if name.startswith("evaluate_") else f"moss-tok tokenize {path}"


def _copy_missing(source: str, target: str) -> str:
    """Keep what is there: in a checkout it is the same file."""
    return target if Path(target).exists() else shutil.copyfile(source, target)
