"""A run on Ray: the only package that imports it. The driver schedules shards, actors encode, reader tasks decode."""
