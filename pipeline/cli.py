"""The command `moss-tok`."""

from __future__ import annotations

import argparse
import inspect
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from moss_tok import DEFAULT_MODEL
from pipeline.exit_status import ExitStatus

DESCRIPTION = """\
Audio datasets into discrete codes with the MOSS Audio Tokenizer.

  moss-tok plan configs/demo.yaml                 what would be done, and how much it would be
  moss-tok tokenize configs/demo.yaml             do it; the same command again resumes
  moss-tok status out/demo                        how far an output is
  moss-tok encode a.wav b.mp3 -o codes            a few files, without Ray
  moss-tok decode out/demo --id ID -o a.wav       back to sound
  moss-tok agreement --dtype bfloat16 a.wav       what another precision changes
"""

TOKENIZE = """\
Tokenize everything that CONFIG names, with Ray, into an output folder.

Any key of the configuration can be set on the command line, as section.key=value with a YAML value:

  moss-tok tokenize configs/librispeech.yaml output.uri=s3://bucket/codes model.dtype=bfloat16
  moss-tok tokenize configs/demo.yaml 'input.splits.train=[a.tar, b.tar]' cluster.actors=2

The same command again does only the shards that are not committed. Exit status: 0 every shard is committed, 1 some
failed, 2 the configuration cannot be used, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    warnings.filterwarnings("ignore", message=".*untrained codec", category=UserWarning)  # the commands say it better
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        arguments = _parser().parse_args(argv)
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        return ExitStatus.DONE
    except (ValueError, LookupError, OSError) as error:
        # Every error of ours that a user can mend is one of these, and says what to do.
        print(f"moss-tok: {_plain(error)}", file=sys.stderr)
        return ExitStatus.USAGE


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _plain(error: BaseException) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moss-tok", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"moss-tok {version('moss-tok')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str, help: str) -> argparse.ArgumentParser:
        raw = argparse.RawDescriptionHelpFormatter
        sub = commands.add_parser(name, help=help, description=inspect.cleandoc(text), formatter_class=raw)
        sub.set_defaults(command=command)
        return sub

    for name, command, text, help in (
        ("tokenize", _tokenize, TOKENIZE, "make a dataset of codes, or go on with one"),
        ("plan", _plan, _plan.__doc__ or "", "show what tokenize would do, from a sample"),
    ):
        sub = add(name, command, text, help)
        sub.add_argument("config", metavar="CONFIG.yaml", help="see configs/ for examples")
        sub.add_argument("overrides", nargs="*", metavar="section.key=value", help="set a key of the configuration")

    status = add("status", _status, _status.__doc__ or "", "how far an output is")
    status.add_argument("output", metavar="OUTPUT", help="folder or URI of the dataset")
    status.add_argument("--json", action="store_true", help="print one JSON object")

    encode = add("encode", _encode, _encode.__doc__ or "", "tokenize a few files without Ray")
    encode.add_argument("files", nargs="+", metavar="FILE", help="audio files, folders or globs")
    encode.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of the new dataset")
    _add_model_options(encode)

    decode = add("decode", _decode, _decode.__doc__ or "", "turn a row back into sound")
    decode.add_argument("output", metavar="OUTPUT", help="folder or URI of the dataset")
    decode.add_argument("--id", required=True, help="the row's id, from column id")
    decode.add_argument("--num-quantizers", type=int, metavar="K", help="use the first K RVQ layers (default: all)")
    decode.add_argument("-o", "--out", required=True, type=Path, metavar="FILE", help="a .wav or .flac file")
    decode.add_argument("--model", help="folder, hub repo or embedded model, if not where the dataset says")

    agreement = add("agreement", _agreement, _agreement.__doc__ or "", "how far another precision changes the codes")
    agreement.add_argument("files", nargs="+", type=Path, metavar="AUDIO", help="audio files")
    _add_model_options(agreement, dtype="bfloat16")
    return parser


def _add_model_options(parser: argparse.ArgumentParser, dtype: str = "float32") -> None:
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="hub repo, local folder or cat-tiny (default: %(default)s)"
    )
    parser.add_argument("--revision", help="commit, tag or branch of the hub repo")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=dtype, help="default: %(default)s")
    parser.add_argument("--num-quantizers", type=int, metavar="K", help="RVQ layers to use (default: all)")


def _tokenize(arguments: argparse.Namespace) -> int:
    from pipeline.command import tokenize

    return tokenize(arguments.config, arguments.overrides)


def _plan(arguments: argparse.Namespace) -> int:
    """Show the shards that tokenize would make of CONFIG, and estimate hours, codes and output size from a sample.

    Nothing is written.
    """
    from pipeline.command import plan

    return plan(arguments.config, arguments.overrides)


def _status(arguments: argparse.Namespace) -> int:
    """Show how far OUTPUT is: shards, clips, hours, rejects by reason. Works beside a run and after its death."""
    from pipeline.command import status

    return status(arguments.output, as_json=arguments.json)


def _encode(arguments: argparse.Namespace) -> int:
    """Tokenize a few files into a small dataset, in this process.

    The folder it makes is like any other output: load_dataset reads it, `moss-tok decode` decodes it, and the same
    command again resumes. Exit status: 0 every clip has codes, 1 some were rejected.
    """
    from pipeline.command import encode

    model = {"name": arguments.model, "revision": arguments.revision, "dtype": arguments.dtype}
    return encode(arguments.files, arguments.output, model | {"num_quantizers": arguments.num_quantizers})


def _decode(arguments: argparse.Namespace) -> int:
    """Decode one row of OUTPUT into a sound file of exactly the clip's length.

    Fewer RVQ layers (--num-quantizers) give a coarser sound and read fewer bytes.
    """
    from pipeline.command import decode

    return decode(arguments.output, arguments.id, arguments.num_quantizers, arguments.out, arguments.model)


def _agreement(arguments: argparse.Namespace) -> int:
    """Encode files in float32 and in another precision, and compare.

    Prints the share of equal codes in each RVQ layer, and how far the decoded sound is from the original with both.
    """
    from pipeline.command import agreement

    files, options = arguments.files, (arguments.model, arguments.revision, arguments.dtype, arguments.num_quantizers)
    return agreement(files, *options)


if __name__ == "__main__":
    sys.exit(main())
