"""Makes the layout of documents from the settings, and checks that documents can be read back."""

from __future__ import annotations

from pipeline.export.config import AUDIO, REFERENCE, TEXT, TokensConfig
from pipeline.export.tokens.documents import DocumentLayout
from pipeline.export.tokens.tokenizer import TextTokenizer
from pipeline.yaml_config import ConfigError


def document_layout(
    config: TokensConfig,
    tokenizer: TextTokenizer | None,
    num_quantizers: int,
    codebook_size: int,
    repeats: tuple[int, ...] | None = None,
) -> DocumentLayout:
    """The layout that a configuration asks for. Raises ConfigError for one that could not be read back.

    `repeats` is for codecs whose codebooks differ in their frame rate: see `flatten`.
    """
    template = tuple(part if part in (TEXT, AUDIO, REFERENCE) else _id(part, tokenizer) for part in config.template)
    _check_template(template, tokenizer)
    vocabulary = tokenizer.vocabulary_size if tokenizer else 0
    flat = config.layout == "flat"
    above = max([config.text_offset + vocabulary - 1, *(part for part in template if isinstance(part, int))]) + 1
    audio_offset = config.audio_offset if config.audio_offset is not None else (above if flat else 0)
    delays = None if flat else _delays(config, num_quantizers)
    audio_slot = _slot(config.audio_slot, tokenizer, flat)
    delay_slot = audio_slot if config.delay_slot is None else _id(config.delay_slot, tokenizer)
    reference_slot = audio_slot if config.reference_slot is None else _id(config.reference_slot, tokenizer)
    # MOSS-TTS has the same token beside the delayed last steps of a reference as beside its frames.
    reference_slots = (reference_slot, reference_slot if config.reference_slot is not None else delay_slot)
    audio_pad = audio_offset + codebook_size if config.audio_pad is None else config.audio_pad
    if config.sequence_length is not None and config.pad is None:
        raise ConfigError("tokens.pad: sequences of a fixed length need a token that fills their end")
    layout = DocumentLayout(
        template=template,
        num_quantizers=num_quantizers,
        codebook_size=codebook_size,
        text_offset=config.text_offset,
        vocabulary_size=vocabulary,
        audio_offset=audio_offset,
        separate_layers=config.separate_layers,
        delays=delays,
        audio_slots=(audio_slot, delay_slot),
        reference_slots=reference_slots,
        audio_pad=audio_pad,
        pad=None if config.pad is None else _id(config.pad, tokenizer),
        sequence_length=config.sequence_length,
        repeats=repeats if flat else None,
    )
    _check_ids(layout)
    return layout


def _id(token: int | str, tokenizer: TextTokenizer | None) -> int:
    if isinstance(token, int):
        return token
    if tokenizer is None:
        raise ConfigError(f"tokens: {token!r} is a token's name: give tokens.tokenizer, or a number")
    return tokenizer.id_of(token)


def _slot(token: int | str | None, tokenizer: TextTokenizer | None, flat: bool) -> int:
    if flat:
        return 0
    if token is None:
        raise ConfigError("tokens.audio_slot: needed for layouts with streams: what the text stream holds beside codes")
    return _id(token, tokenizer)


def _delays(config: TokensConfig, num_quantizers: int) -> tuple[int, ...]:
    if config.layout == "parallel":
        return (0,) * num_quantizers
    delays = tuple(range(num_quantizers)) if config.delays is None else config.delays
    if len(delays) != num_quantizers or min(delays) < 0:
        raise ConfigError(
            f"tokens.delays: {len(delays)} numbers; expected one from 0 on for each of {num_quantizers} layers"
        )
    return delays


def _check_template(template: tuple[int | str, ...], tokenizer: TextTokenizer | None) -> None:
    for name in (TEXT, AUDIO, REFERENCE):
        if template.count(name) > 1:
            raise ConfigError(f"tokens.template: {name} occurs twice")
    if AUDIO not in template:
        raise ConfigError("tokens.template: no {audio}")
    if TEXT in template and tokenizer is None:
        raise ConfigError("tokens.tokenizer: needed for {text}: a tokenizer.json or a folder that holds one")
    between = "".join("," if isinstance(part, int) else part for part in template).replace(TEXT, "")
    if AUDIO + REFERENCE in between or REFERENCE + AUDIO in between:
        raise ConfigError("tokens.template: put a token between {reference} and {audio}: nothing else tells them apart")


def _check_ids(layout: DocumentLayout) -> None:
    """Check that the ids of text, codes and special tokens do not overlap. Raises ConfigError."""
    if layout.delays is None:
        layers = layout.num_quantizers if layout.separate_layers else 1
        codes = range(layout.audio_offset, layout.audio_offset + layers * layout.codebook_size)
        text = range(layout.text_offset, layout.text_offset + layout.vocabulary_size)
        if max(codes.start, text.start) < min(codes.stop, text.stop):
            raise ConfigError(f"tokens.audio_offset: codes would have {_ids(codes)}, and text has {_ids(text)}")
        if marks := [mark for mark in layout.marks if mark in codes]:
            raise ConfigError(f"tokens.template: {marks[0]} is the id of a code: codes have {_ids(codes)}")
    else:
        codes = range(layout.audio_offset, layout.audio_offset + layout.codebook_size)
        if layout.audio_pad in codes:
            raise ConfigError(f"tokens.audio_pad: {layout.audio_pad} is the id of a code: codes have {_ids(codes)}")
        fixed = {part for part in layout.template if isinstance(part, int)}
        if taken := fixed & {*layout.audio_slots, *layout.reference_slots}:
            raise ConfigError(f"tokens: {min(taken)} is both a slot and a token of the template")
    if layout.largest_id >= 2**31:
        raise ConfigError(f"tokens: id {layout.largest_id} does not fit into 31 bits")


def _ids(ids: range) -> str:
    return f"the ids {ids.start} to {ids.stop - 1}"
