"""ONNX models that ship inside packages: found without importing the package, which may import torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from pipeline.extras import MissingPackage, require

EXTRA = "signals"


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A file of a package."""

    key: str
    """Of the configuration: what needs it."""
    package: str
    """Name of the distribution."""
    file: str
    """Path below the folder that packages are installed in."""

    def describe(self) -> dict[str, Any]:
        """What identifies the model. Raises MissingPackage for it and for onnxruntime."""
        require("onnxruntime", EXTRA)
        return {"package": self.package, "file": self.file, "sha256": file_sha256(self._path())}

    def session(self, made_by: Mapping[str, Any]) -> Any:
        """The model, ready to run. Raises MissingPackage, and ValueError if it is not the one that is recorded."""
        path = self._path()
        if file_sha256(path) != made_by["sha256"]:
            raise ValueError(
                f"{self.key}: {path} is not the model of the output, whose SHA-256 begins with "
                f"{made_by['sha256'][:12]}: install the version of {self.package} that its run.json names"
            )
        return _session(path)

    def _path(self) -> Path:
        try:
            path = Path(str(distribution(self.package).locate_file(self.file)))
        except PackageNotFoundError:
            path = None
        if path is None or not path.is_file():
            what = "is not installed" if path is None else f"has no {self.file}"
            raise MissingPackage(f"{self.key}: the package {self.package} {what}: pip install 'moss-tok[{EXTRA}]'")
        return path


@cache
def file_sha256(path: Path) -> str:
    """The SHA-256 of a file that does not change, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@cache
def _session(path: Path) -> Any:
    """One for all shards of a process. It has one thread, as a reader has one CPU, and sums then have one order."""
    onnxruntime = require("onnxruntime", EXTRA)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
