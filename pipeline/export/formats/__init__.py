"""The formats of exports, one module each. `make_format` makes the one that a configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.codecs.protocol import Codebook
from pipeline.dataset.provenance import RunRecord
from pipeline.export.buckets import Buckets
from pipeline.export.config import ExportConfig
from pipeline.export.formats.lhotse_shar import LhotseShar
from pipeline.export.formats.moss_tts import MossTts
from pipeline.export.formats.nemo import Nemo
from pipeline.export.part import Format
from pipeline.export.tokens.document_rules import document_layout
from pipeline.export.tokens.format import Tokens
from pipeline.export.tokens.tokenizer import TextTokenizer

SECTIONS = {"moss-tts": "moss_tts", "tokens": "tokens", "nemo": "asr", "lhotse": "asr"}
"""The section of the configuration for each format."""


def make_format(config: ExportConfig, record: RunRecord, buckets: Buckets, tokenizer: TextTokenizer | None) -> Format:
    """The format of an export. Raises ConfigError for settings that do not fit each other or the dataset."""
    if config.export.to == "moss-tts":
        return MossTts(config.moss_tts)
    if config.export.to == "nemo":
        return Nemo(config.asr.codes, buckets)
    if config.export.to == "lhotse":
        return LhotseShar(config.asr.codes, buckets, record.model.samples_per_frame)
    num_quantizers = config.dataset.num_quantizers or record.num_quantizers
    books = record.codebooks[:num_quantizers]
    largest = max(book.size for book in books)
    layout = document_layout(config.tokens, tokenizer, num_quantizers, largest, _repeats(books))
    return Tokens(config.tokens, layout, tokenizer)


def _repeats(books: Sequence[Codebook]) -> tuple[int, ...] | None:
    """How often each codebook's codes are repeated beside those of the finest; None where none is."""
    finest = min(book.samples_per_code for book in books)
    repeats = tuple(book.samples_per_code // finest for book in books)
    return None if max(repeats) == 1 else repeats
