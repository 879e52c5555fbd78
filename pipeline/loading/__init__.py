"""Reads committed codes: as datasets for trainers, as selected rows, and decoded to sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.loading.hf import load_codes

__all__ = ["load_codes"]


def __getattr__(name: str) -> Any:
    """Import `load_codes` on first use: it needs `datasets`, which takes a second to import."""
    if name == "load_codes":
        from pipeline.loading.hf import load_codes

        return load_codes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
