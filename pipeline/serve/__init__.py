"""The pages of an output while a run is on, over HTTP, read-only."""
