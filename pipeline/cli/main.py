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
Audio datasets into discrete codes with the MOSS Audio Tokenizer.

  moss-tok plan configs/demo.yaml                 what would be done, and how much it would be
  moss-tok tokenize configs/demo.yaml             do it; the same command again resumes
  moss-tok status out/demo                        how far an output is
  moss-tok encode a.wav b.mp3 -o codes            a few files, without Ray
  moss-tok decode out/demo --id ID -o a.wav       back to sound
  moss-tok report out/demo                        a page to look at and listen to
  moss-tok verify out/demo                        whether an output is whole and still true
  moss-tok repair out/demo                        mend manifests, undo shards that are damaged
  moss-tok duplicates out/demo -o drop.txt        clips that are copies of others
  moss-tok export out/demo --to nemo -o out/asr   what trainers read
  moss-tok push out/demo me/demo-codes            to a dataset repo of the Hugging Face hub
  moss-tok evaluate DIR --model cat-tiny -o out/e  how well a codec keeps sound
  moss-tok agreement --dtype bfloat16 a.wav       what another precision changes
"""

NAMES = (
    "tokenize",
    "plan",
    "status",
    "encode",
    "decode",
    "export",
    "verify",
    "repair",
    "duplicates",
    "report",
    "push",
    "evaluate",
    "agreement",
)
"""In the order of the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    logs.configure("text")
    warnings.filterwarnings("ignore", message=".*untrained codec", category=UserWarning)  # the commands say it better
    try:
        with signals.listening():
            arguments = _parser().parse_args(argv)
            run: Callable[[argparse.Namespace], int] = arguments.run
            return run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        return ExitStatus.DONE
    except _errors_for_users() as error:
        print(f"moss-tok: {_plain(error)}", file=sys.stderr)
        return ExitStatus.USAGE


def _errors_for_users() -> tuple[type[Exception], ...]:
    """Every error of ours that a user can mend is one of these, and says what to do.

    They are looked up where there is an error, so that help does not wait for what storage imports.
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


if __name__ == "__main__":
    sys.exit(main())
