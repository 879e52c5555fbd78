"""The journey of a clip, one step a module: plan, read, prepare, batch, encode, records, write.

No step imports another. The rooms above compose them: `shard` in one process, `distributed` with Ray."""
