"""From audio shards to Parquet shards of codes.

Rooms, from the top: `cli`; `verify`, `report`, `distributed`; `loading`, `export`, `monitoring`, `shard`; `dataset`;
`steps`; `storage` and the modules beside them. A room imports only from rooms below it.
"""
