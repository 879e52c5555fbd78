"""Parts of the self-contained pages that moss-tok writes: plots, numbers and sounds."""
