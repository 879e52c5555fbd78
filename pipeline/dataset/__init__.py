"""What an output holds: its layout, plan, shard manifests, provenance, totals and card, and the commit of a shard."""
