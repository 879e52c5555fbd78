"""Exports of a dataset of codes to formats that trainers read: MOSS-TTS, token sequences, NeMo and Lhotse.

    rows -> filters -> splits -> references -> format -> files of a part -> export manifest

A part is the export of one shard. It is the unit of work, of memory and of resuming. Its files depend on its shard, the
configuration and, for references and estimated buckets, on one survey of all rows. Its export manifest in
`_moss_tok/parts/` commits it.
"""
