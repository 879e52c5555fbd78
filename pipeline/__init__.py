"""From audio shards to Parquet shards of codes: plan, read, prepare, batch, encode, records, write, manifest.

Each step is a module. `shard` composes them in one process, `actors` puts Ray around them, `run` schedules.
"""
