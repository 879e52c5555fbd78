"""One shard from its specification to its manifest, in one process and without Ray."""
