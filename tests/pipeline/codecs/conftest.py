"""Each small model is built once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.pipeline.codecs.models import MODELS

if sys.version_info < (3, 11):  # for which there is no transformers of the version that has these models
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model by its name in MODELS."""

    @cache
    def build(name: str) -> Path:
        return MODELS[name](tmp_path_factory.mktemp("codecs") / name)

    return build
