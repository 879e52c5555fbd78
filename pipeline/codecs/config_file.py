"""The `config.json` of a model: what it says, without trusting it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from moss_tok.checkpoint import CONFIG_FILE, Checkpoint
from pipeline.codecs.protocol import CodecError

MAX_CONFIG_BYTES = 1 << 20


def read_config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The contents of a config.json. Raises CodecError for anything but a JSON object of a sensible size."""
    path = checkpoint.folder / CONFIG_FILE
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise CodecError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes: not the config.json of a codec")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CodecError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CodecError(f"{path} holds no JSON object")
    return config
