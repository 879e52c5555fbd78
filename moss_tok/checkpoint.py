"""Where a codec's weights come from, and how they get into memory: mapped from disk once, and strictly checked.

A checkpoint is a folder with `config.json` and `model.safetensors`, or several safetensors files and
`model.safetensors.index.json`. It is a local folder, a codec embedded in this package, or a repo on the Hugging Face
hub. Nothing is ever unpickled, and no code of a repo is run. Inside, parameters have their names of v1; the names of
other releases are mapped here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from moss_tok import DEFAULT_MODEL
from moss_tok.config import MossAudioTokenizerConfig
from moss_tok.embedded import EMBEDDED_FOLDER, EMBEDDED_MODELS

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE = "config.json", "model.safetensors", "model.safetensors.index.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
MAX_INDEX_BYTES = 64 << 20

# Other releases' names of the same parameters.
KEY_SPELLINGS = (
    (re.compile(r"\.self_attn\.(in|out)_proj\.weight$"), r".self_attn.\1_projs.0.weight"),
    (re.compile(r"\.ffn\.0\.weight$"), ".linear1.weight"),
    (re.compile(r"\.ffn\.2\.weight$"), ".linear2.weight"),
    (re.compile(r"\.weight_g$"), ".parametrizations.weight.original0"),
    (re.compile(r"\.weight_v$"), ".parametrizations.weight.original1"),
)


class CheckpointError(ValueError):
    """Weights that do not fit the configuration, or damaged files. The message names what is wrong."""


class ModelNotFoundError(FileNotFoundError):
    """There is no codec of this name: no folder, no embedded codec, no repo on the hub."""


class HubUnreachableError(ConnectionError):
    """The hub did not answer. The message says what works without it."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a weights file, which a mapping holds by its v1 name. `key` is its name in the file."""

    file: Path
    key: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A resolved folder of weights. `revision` is the commit for a hub repo, else None."""

    name: str
    folder: Path
    revision: str | None = None

    @cached_property
    def config(self) -> MossAudioTokenizerConfig:
        return MossAudioTokenizerConfig.from_file(self.folder / CONFIG_FILE)

    @cached_property
    def weights_files(self) -> tuple[Path, ...]:
        """The safetensors files, in the order of their names."""
        if (self.folder / WEIGHTS_FILE).is_file():
            return (self.folder / WEIGHTS_FILE,)
        index = self.folder / INDEX_FILE
        if not index.is_file():
            raise ModelNotFoundError(f"{self.folder} holds neither {WEIGHTS_FILE} nor {INDEX_FILE}")
        return tuple(self.folder / name for name in _shard_names(index))

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights files joined in order: what `cat *.safetensors | sha256sum` prints."""
        digest = hashlib.sha256()
        for path in self.weights_files:
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """Every stored tensor under its v1 name. Reads headers only."""
        found: dict[str, StoredTensor] = {}
        for path in self.weights_files:
            try:
                with safe_open(path, framework="pt") as file:
                    for key in file.keys():  # noqa: SIM118 - not a mapping
                        name = v1_name(key)
                        if name in found:
                            raise CheckpointError(f"{path}: {key} is stored twice (also in {found[name].file.name})")
                        found[name] = StoredTensor(path, key, tuple(file.get_slice(key).get_shape()))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} is missing, truncated or not a safetensors file: {error}") from error
        return found

    def load(self, expected: Mapping[str, tuple[int, ...]], prefixes: Iterable[str]) -> dict[str, Tensor]:
        """The tensors whose names start with one of `prefixes`, mapped from disk, not copied.

        Raises CheckpointError naming every missing or unexpected key and wrong shape.
        """
        stored = {name: entry for name, entry in self.tensors.items() if name.startswith(tuple(prefixes))}
        foreign = [name for name in self.tensors if not name.startswith(("encoder.", "quantizer.", "decoder."))]
        _check_keys(expected, stored, foreign, self.folder)
        loaded: dict[str, Tensor] = {}
        for path in self.weights_files:
            with safe_open(path, framework="pt") as file:
                for name, entry in stored.items():
                    if entry.file == path:
                        loaded[name] = file.get_tensor(entry.key)
                        if not loaded[name].is_floating_point():
                            raise CheckpointError(f"{path}: {entry.key} is {loaded[name].dtype}, not floating point")
        return loaded


def v1_name(key: str) -> str:
    """The v1 release's name of a parameter."""
    for spelling, replacement in KEY_SPELLINGS:
        key = spelling.sub(replacement, key)
    return key


def resolve(name_or_path: str | Path, revision: str | None = None) -> Checkpoint:
    """Find a codec: a local folder, the name of an embedded codec, or the id of a hub repo, which is downloaded or
    taken from the cache.

    Raises ModelNotFoundError if there is none of that name, HubUnreachableError if the hub cannot be asked.
    """
    name = str(name_or_path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG_FILE).is_file():
            raise ModelNotFoundError(f"{folder} holds no {CONFIG_FILE}: not the folder of a codec")
        return Checkpoint(name, folder)
    if name in EMBEDDED_MODELS:
        return Checkpoint(name, EMBEDDED_FOLDER / name)
    if folder.exists() or not HUB_ID.fullmatch(name):
        raise ModelNotFoundError(
            f"{name!r} is not a folder, not an embedded codec ({', '.join(EMBEDDED_MODELS)}) "
            f"and not a hub repo id such as {DEFAULT_MODEL!r}"
        )
    return _from_hub(name, revision)


def weights_sha256(name_or_path: str | Path, revision: str | None = None) -> str:
    """The SHA-256 of a codec's weights files, without building the codec."""
    return resolve(name_or_path, revision).weights_sha256


def _from_hub(repo: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        folder = snapshot_download(repo, revision=revision, allow_patterns=["*.safetensors", CONFIG_FILE, INDEX_FILE])
    except RevisionNotFoundError as error:
        raise ModelNotFoundError(f"the hub repo {repo!r} has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"the hub has no repo {repo!r} that you may read, and there is no folder of that name"
        ) from error
    except Exception as error:  # the hub client raises a different family of errors for every way of being offline
        raise HubUnreachableError(
            f"cannot get {repo!r} from the Hugging Face hub ({type(error).__name__}: {error}). "
            f"Either pass a local folder with its {CONFIG_FILE} and {WEIGHTS_FILE}, "
            "or use the embedded codec 'cat-speech' (small: for trying things out)."
        ) from error
    checkpoint = Checkpoint(repo, Path(folder), Path(folder).name)
    if not (checkpoint.folder / CONFIG_FILE).is_file():
        raise ModelNotFoundError(f"the hub repo {repo!r} holds no {CONFIG_FILE}")
    return checkpoint


def _shard_names(index: Path) -> list[str]:
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise CheckpointError(f"{index} is larger than {MAX_INDEX_BYTES} bytes: not an index of weights")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} has no weight_map of names to files: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} names {name!r}, which is not a .safetensors file beside it")
    return names


def _check_keys(
    expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, StoredTensor], foreign: list[str], folder: Path
) -> None:
    problems = [f"missing {name} {list(shape)}" for name, shape in expected.items() if name not in stored]
    problems += [f"unexpected {name}" for name in [*foreign, *(name for name in stored if name not in expected)]]
    problems += [
        f"{name} is {list(stored[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in stored and stored[name].shape != tuple(shape)
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise CheckpointError(f"the weights in {folder} do not fit its {CONFIG_FILE}: {shown}")
