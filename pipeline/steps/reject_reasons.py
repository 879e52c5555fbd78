"""The reasons to reject a clip outside of decoding. Those of decoding are in `moss_tok.audio.REASONS`."""

from __future__ import annotations

READ_REASONS = {
    "missing": "The audio file does not exist, or no file can have the address that is given for it.",
    "bad_record": "A record of the input list cannot be understood or names no audio.",
    "no_audio": "The sample or row holds no audio.",
    "too_many_bytes": "The encoded clip is larger than input.max_clip_bytes.",
    "not_a_file": "The tar member is a link or a device, or the file is a device, a pipe or a socket: none is opened.",
    "not_allowed": "An input list points to, or a local link leads to, what it may not: see input.allow.",
    "unreachable": "The store of the clip cannot be reached from here, while others can.",
    "damaged_source": "The tar or Parquet file is cut or corrupt from here on.",
}

MAY_PASS = frozenset({"missing", "unreachable"})
"""Reasons that may pass: they depend on the moment and not on the clip."""

PREPARE_REASONS = {
    "outside_file": "The clip is a part of a file that is not, or not all, in the file.",
    "too_short": "The clip is shorter than prepare.min_seconds.",
    "crashed": "Preparing the clip failed in a way that no other reason covers.",
    "decoder_crashed": "The process that decodes died of this clip, twice in a row: a fault of the decoder, or memory.",
    "decoder_stalled": "The decoder needed longer than run.stall_seconds for a block, twice in a row.",
}
