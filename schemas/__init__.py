"""Versioned column definitions: the one source of names, types, units and descriptions."""
