"""The formats of exports, one module each. `make_format` makes the one that a configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from pipeline.codecs.protocol import Codebook
from pipeline.dataset.provenance import RunRecord
from pipeline.export.buckets import Buckets
from pipeline.export.config import ExportConfig
from pipeline.export.formats.lance_dataset import Lance
from pipeline.export.formats.lhotse_cuts import Lhotse
from pipeline.export.formats.litdata_chunks import LitData
from pipeline.export.formats.mds import Mds
from pipeline.export.formats.moss_dialogue import REALTIME_LAYERS, Realtime, Ttsd
from pipeline.export.formats.moss_tts import MossTts
from pipeline.export.formats.nemo import Nemo
from pipeline.export.formats.webdataset_tar import WebDataset
from pipeline.export.part import Format
from pipeline.export.tokens.document_rules import document_layout
from pipeline.export.tokens.files import npy_files, parquet_files
from pipeline.export.tokens.format import Tokens
from pipeline.export.tokens.megatron import megatron_files
from pipeline.export.tokens.tokenizer import TextTokenizer
from pipeline.schema import code_type
from pipeline.yaml_config import ConfigError

SECTIONS = {
    "moss-tts": ("moss_tts",),
    "tokens": ("tokens",),
    "megatron": ("tokens",),
    "nemo": ("asr",),
    "lhotse": ("asr",),
    **dict.fromkeys(("webdataset", "litdata", "mds", "lance"), ("samples",)),
}
"""The sections of the configuration that are for one format alone."""


def make_format(config: ExportConfig, record: RunRecord, buckets: Buckets, tokenizer: TextTokenizer | None) -> Format:
    """The format of an export.

    Raises ConfigError for settings that do not fit each other or the dataset, and if its library is not installed.
    """
    books = record.codebooks[: config.dataset.num_quantizers]
    largest = max(book.size for book in books)
    references = config.references.enabled
    if config.splits.shares is not None and (config.moss_tts.conversation or config.samples.join):
        raise ConfigError(
            "moss_tts.conversation, samples.join: shares of splits would cut what belongs together: leave out "
            "splits.shares"
        )
    match config.export.to:
        case "moss-tts":
            return _moss_tts(config, len(books))
        case "nemo":
            return Nemo(config.asr.codes, buckets)
        case "lhotse":
            return Lhotse(config.asr, buckets, record.model.samples_per_frame)
        case "webdataset":
            return WebDataset(config.samples)
        case "mds":
            return Mds(config.samples, references)
        case "litdata":
            return LitData(config.samples, references)
        case "lance":
            return Lance(config.samples, len(books), getattr(pa, code_type(largest))(), references)
        case "tokens":
            files = parquet_files if config.tokens.storage == "parquet" else npy_files
        case "megatron":
            if config.tokens.layout != "flat" or config.tokens.sequence_length is not None:
                raise ConfigError(
                    "export.to=megatron: its datasets have one stream, and it packs documents itself: leave out "
                    "tokens.layout and tokens.sequence_length"
                )
            files = megatron_files
    layout = document_layout(config.tokens, tokenizer, len(books), largest, _repeats(books))
    return Tokens(config.tokens, layout, tokenizer, files)


def _moss_tts(config: ExportConfig, num_quantizers: int) -> Format:
    if config.moss_tts.form == "tts":
        return MossTts(config.moss_tts)
    if config.moss_tts.form == "ttsd":
        return Ttsd(config.moss_tts)
    if num_quantizers != REALTIME_LAYERS:
        raise ConfigError(
            f"moss_tts.form=realtime: MOSS-TTS-Realtime takes codes of {REALTIME_LAYERS} layers, and these have "
            f"{num_quantizers}: set dataset.num_quantizers={REALTIME_LAYERS}"
        )
    return Realtime(config.moss_tts)


def _repeats(books: Sequence[Codebook]) -> tuple[int, ...] | None:
    """How often each codebook's codes are repeated beside those of the finest; None where none is."""
    finest = min(book.samples_per_code for book in books)
    repeats = tuple(book.samples_per_code // finest for book in books)
    return None if max(repeats) == 1 else repeats
