"""`python -m moss_tok.training`: data preparation, training and export of the embedded codec."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from moss_tok.training.interrupts import interrupts_handled_by
from moss_tok.training.recipe import Recipe

DESCRIPTION = """\
Train a small MOSS Audio Tokenizer from freely licensed recordings.

  python -m moss_tok.training recipe FOLDER              all of it: prepare, train, export; again to go on
  python -m moss_tok.training recipe FOLDER --minutes 10 train for ten minutes at most, then export
  python -m moss_tok.training recipe FOLDER --times 20   every phase twenty times as long, for a better codec
  python -m moss_tok.training recipe FOLDER --start cat-speech   go on from the weights of a trained codec

The embedded codec cat-speech was made by the first, and by going on from what that gave. Its weights are under
CC-BY-SA-3.0, and so are those that this makes, because some of the recordings are:
moss_tok/models/cat-speech/LICENSE.md names them all.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m moss_tok.training",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("recipe", "prepare, train and export below one folder"),
        ("prepare", "fetch the recordings and write the training data"),
        ("train", "train, or go on from the checkpoint"),
        ("export", "write the codec of a training run as config.json and model.safetensors"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        _PARSERS[name](command)
    options = parser.parse_args(arguments)
    try:
        with interrupts_handled_by(signal.default_int_handler):
            _RUNNERS[options.command](options)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="gets packages/, data/, run/ and codec/")
    _add_preparation(parser)
    _add_training(parser)


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="folder for the training data")
    parser.add_argument("--packages", type=Path, required=True, help="folder for the .deb files")
    _add_preparation(parser)


def _add_preparation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--synthetic-minutes", type=float, default=30, help="minutes of English speech, one voice")
    parser.add_argument("--voices-minutes", type=float, default=50, help="minutes of it in many voices (slow to make)")


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="folder that prepare wrote")
    parser.add_argument("run", type=Path, help="folder for the checkpoint and the validation curve")
    _add_training(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    recipe = parser.add_mutually_exclusive_group()
    recipe.add_argument("--recipe-file", type=Path, help="JSON with the numbers that differ from the built-in recipe")
    recipe.add_argument("--start", metavar="CODEC", help="go on from the weights of a codec: cat-speech, or a folder")
    parser.add_argument("--times", type=float, default=1, help="make every phase so many times as long")
    parser.add_argument("--minutes", type=float, help="stop after so long; the same command goes on")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--bfloat16", action="store_true", help="multiply matrices in bfloat16 (avx512_bf16: faster)")
    parser.add_argument("--processes", type=int, help="processes that share a batch (default: one a core, or one GPU)")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="folder that train wrote")
    parser.add_argument("codec", type=Path, help="folder for config.json and model.safetensors")


def _run_recipe(options: argparse.Namespace) -> None:
    from moss_tok.training.prepare import ABOUT

    options.data, options.run, options.packages = (options.folder / name for name in ("data", "run", "packages"))
    options.codec = options.folder / "codec"
    if (options.data / ABOUT).exists():
        print(f"{options.data} is prepared")
    else:
        _run_prepare(options)
    _run_train(options)
    _run_export(options)


def _run_prepare(options: argparse.Namespace) -> None:
    from moss_tok.training.prepare import prepare

    prepare(
        options.data, options.packages,
        synthetic_minutes=options.synthetic_minutes, voices_minutes=options.voices_minutes,
    )  # fmt: skip


def _run_train(options: argparse.Namespace) -> None:
    from moss_tok.training.launch import default_processes, train
    from moss_tok.training.loop import Run
    from moss_tok.training.prepare import SOUND

    if not (options.data / SOUND).exists():
        raise FileNotFoundError(f"{options.data}: no training data; make it with prepare")
    recipe = Recipe() if options.recipe_file is None else Recipe.from_file(options.recipe_file)
    if options.start is not None:
        recipe = recipe.starting_from(options.start)
    recipe = recipe.times(options.times)
    processes = options.processes or default_processes(options.device, recipe.batch_size)
    run = Run(options.data, options.run, device=options.device, bfloat16=options.bfloat16, minutes=options.minutes)
    train(recipe, run, processes)


def _run_export(options: argparse.Namespace) -> None:
    from moss_tok.training.export import export_run
    from moss_tok.training.loop import CHECKPOINT

    if not (options.run / CHECKPOINT).exists():
        raise FileNotFoundError(f"{options.run}: no training run; begin one with train")
    export_run(options.run, options.codec)
    print(f"wrote {options.codec}: MossAudioTokenizerModel.from_pretrained({str(options.codec)!r}) loads it")


_PARSERS = {"recipe": _add_recipe, "prepare": _add_prepare, "train": _add_train, "export": _add_export}
_RUNNERS = {"recipe": _run_recipe, "prepare": _run_prepare, "train": _run_train, "export": _run_export}

if __name__ == "__main__":
    sys.exit(main())
