"""Committed rows of a dataset of codes into what trainers read: MOSS-TTS, token sequences, NeMo and Lhotse.

    rows -> filters -> splits -> references -> format -> files of a part -> part's manifest

A part is what one shard of the dataset becomes. It is the unit of work, of memory and of resuming: its files depend on
its shard, the configuration and (for references and estimated buckets) one survey of the whole, and its manifest in
`_moss_tok/parts/` is the commit.
"""
