"""The command `moss-tok`."""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version

from pipeline import logs, signals
from pipeline.cli.exit_status import ExitStatus

DESCRIPTION = """\
Turn audio datasets into discrete codes with the MOSS Audio Tokenizer.

  moss-tok init demo                              write demo.yaml, an example to begin with
  moss-tok plan demo.yaml                         show what tokenize would do, and how much it would be
  moss-tok tokenize demo.yaml                     tokenize a dataset; the same command again resumes
  moss-tok status out/demo                        show how far an output is
  moss-tok serve out/demo                         the same and more in a browser, while a run is on
  moss-tok encode a.wav b.mp3 -o codes            tokenize a few files, without Ray
  moss-tok decode out/demo --id ID -o a.wav       decode rows to sound
  moss-tok report out/demo                        make a page to look at and listen to
  moss-tok stats out/demo duration                print the histogram of a column
  moss-tok verify out/demo                        check an output against its checksums and its sources
  moss-tok repair out/demo                        rebuild lost manifests, remove damaged shards
  moss-tok duplicates out/demo -o drop.txt        list the clips that are copies of others
  moss-tok export out/demo --to nemo -o out/asr   write what trainers read
  moss-tok push out/demo me/demo-codes            upload an output to the Hugging Face hub
  moss-tok evaluate DIR --model cat-speech -o o   measure how well a codec keeps sound
  moss-tok agreement --dtype bfloat16 a.wav       measure how another precision changes the codes
"""

NAMES = (
    "init",
    "tokenize",
    "plan",
    "status",
    "serve",
    "encode",
    "decode",
    "export",
    "verify",
    "repair",
    "duplicates",
    "report",
    "stats",
    "push",
    "evaluate",
    "agreement",
)
"""In the order of the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    logs.configure("text")
    warnings.filterwarnings(
        "ignore", message=".*untrained codec", category=UserWarning
    )  # the commands print a better message
    try:
        with signals.listening():
            arguments = _parser().parse_args(argv)
            run: Callable[[argparse.Namespace], int] = arguments.run
            return run(arguments)
    except (KeyboardInterrupt, Exception) as error:
        # Libraries make other errors of an interrupt, such as a module that cannot be imported.
        if isinstance(error, KeyboardInterrupt) or signals.interrupted():
            print("interrupted", file=sys.stderr)
            return ExitStatus.INTERRUPTED
        if isinstance(error, BrokenPipeError):
            return ExitStatus.DONE
        if isinstance(error, _errors_for_users()):
            print(f"moss-tok: {_plain(error)}", file=sys.stderr)
            return ExitStatus.USAGE
        raise


def _errors_for_users() -> tuple[type[Exception], ...]:
    """The types of our errors that a user can act on. Their messages say what to do.

    Storage is imported here, when an error has happened, so that help does not wait for it.
    """
    from pipeline.storage import StorageError

    return ValueError, LookupError, OSError, StorageError


def _plain(error: BaseException) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="moss-tok", description=DESCRIPTION, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"moss-tok {version('moss-tok')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name in NAMES:
        module = importlib.import_module(f"pipeline.cli.{name}")
        text = inspect.cleandoc(module.__doc__ or "")
        command = commands.add_parser(name, help=module.HELP, description=text, formatter_class=raw)
        module.configure(command)
        command.set_defaults(run=module.run)
    return parser
