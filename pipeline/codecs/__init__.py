"""What a codec must offer (`protocol.py`), and one small module for each family.

Everything else in the pipeline knows the protocol alone. `registry.py` finds the family of a model by its config.json.
"""

from __future__ import annotations

from pipeline.codecs.protocol import Codebook, Codec, CodecDescription, CodecError, Coded, CodeStream, Family
from pipeline.codecs.registry import CodecSource, find_codec, load_codec, precision_of

__all__ = [
    "CodeStream",
    "Codebook",
    "Codec",
    "CodecDescription",
    "CodecError",
    "CodecSource",
    "Coded",
    "Family",
    "find_codec",
    "load_codec",
    "precision_of",
]
