"""The steps of a clip's journey, one module each: plan, read, prepare, batch, encode, records, write.

No step imports another. The rooms above compose them: `shard` in one process, `distributed` with Ray.
"""
