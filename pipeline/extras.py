"""Packages that only some users need: imported when they are used, and a missing one says what to install."""

from __future__ import annotations

import importlib
from typing import Any


class MissingPackage(ImportError, ValueError):
    """A package of an extra is not installed; the message says what to install."""


def require(module: str, extra: str) -> Any:
    """The module. Raises MissingPackage where it, or something that it needs, is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(
            f"this needs the package {module.partition('.')[0]} ({error}): pip install 'moss-tok[{extra}]'"
        ) from None
