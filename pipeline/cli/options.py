"""Arguments of several commands."""

from __future__ import annotations

import argparse

from moss_tok import DEFAULT_MODEL


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.yaml", help="configuration file: moss-tok init writes examples")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="set a key of the configuration")


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUTPUT", help="folder or URI of the dataset")


def add_model(parser: argparse.ArgumentParser, dtype: str = "auto") -> None:
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="hub repo, local folder or an embedded codec: cat-speech (small; its weights are under CC-BY-SA-3.0, see "
        "moss_tok/models/cat-speech/LICENSE.md) or cat-tiny (untrained, for tests). Default: %(default)s",
    )
    parser.add_argument("--codec", metavar="FAMILY", help="family of the codec, if its config.json does not tell")
    parser.add_argument("--revision", help="commit, tag or branch of the hub repo")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default=dtype,
        help="precision; auto is bfloat16 on a GPU. Default: %(default)s",
    )
    parser.add_argument("--num-quantizers", type=int, metavar="K", help="RVQ layers to use (default: all)")
