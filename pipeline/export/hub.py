"""Uploads an output to the Hugging Face hub, as a dataset repo that `load_dataset` and `load_codes` read.

Objects are sent one by one from their store, each checked against its manifest. Objects that the repo has already are
not sent again, so the same call resumes. The card is sent last.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from huggingface_hub import CommitOperationAdd, HfApi, RepoFile, constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from pipeline import storage
from pipeline.dataset.dataset import Output
from pipeline.dataset.manifest import read_manifests

COMMIT_FILES = 500
UPLOAD_BYTES = 256 * 2**20  # contents that are in memory while they are sent
FOLDER_FILES = 10_000  # the hub refuses folders of more files
FIRST = ("_moss_tok/run.json", "_moss_tok/plan.parquet")
LAST = ("_moss_tok/totals.json", "README.md", "_SUCCESS")

# The base of errors of the HTTP library. Versions of the hub's client use different libraries.
_ClientError: type[BaseException] = HfHubHTTPError.__bases__[0]


class PushError(OSError):
    """The output cannot be pushed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Push:
    """The objects that are sent, in order, and those that are not."""

    sizes: Mapping[str, int]
    """Bytes of each object by its path in the output, which is its path in the repo."""
    left_out: Mapping[str, str]
    """Why an object of the output is not sent, by its path."""

    @property
    def size(self) -> int:
        return sum(self.sizes.values())


def plan_push(output: Output, incomplete: bool = False) -> Push:
    """Choose the objects to send: committed shards with their manifests, the record, the plan and the card.

    Raises PushError for an output without a card, and for one that is incomplete unless `incomplete` allows it. Raises
    FileNotFoundError if an object of a committed shard is gone.
    """
    root = output.layout.root
    present = {storage.relative(info.uri, root): info.size for info in storage.list_objects(root)}
    missing = len(output.specs) - len(output.done)
    if (missing or "_SUCCESS" not in present) and not incomplete:
        raise PushError(
            f"{root}: not complete, {missing} of {len(output.specs)} shards are missing: run tokenize again, or push "
            "what is there with --incomplete"
        )
    if "README.md" not in present:
        raise PushError(f"{root}: no README.md yet, which loading needs: tokenize writes it when it ends")
    _check_whole(output, present)
    wanted = [*FIRST, *_shard_paths(output), *LAST]
    left_out = {
        path: "of a shard that is not committed"
        if path.startswith(("data/", "rejects/"))
        else "not part of the dataset"
        for path in sorted(present.keys() - set(wanted))
    }
    return Push({path: present[path] for path in wanted if path in present}, left_out)


def crowded(push: Push) -> dict[str, int]:
    """Number of files by folder, of folders with more files than the hub accepts."""
    counts: dict[str, int] = {}
    for path in push.sizes:
        folder = path.rpartition("/")[0]
        counts[folder] = counts.get(folder, 0) + 1
    return {folder: count for folder, count in counts.items() if count > FOLDER_FILES}


def push(output: Output, plan: Push, repo: str, public: bool, sent: Callable[[str, bool], None]) -> str:
    """Send the objects that the repo does not have; returns the address of the repo.

    The repo is created if it does not exist, private unless `public`. `sent` is called for each object with its path
    and whether it had to be sent. The token is HF_TOKEN of the environment. Raises PushError if the hub cannot be
    reached or refuses, if the repo is public and `public` is false, if it holds another dataset, and for an object that
    differs from its manifest.
    """
    check_repo(repo)
    token = hub_token()
    if folders := crowded(plan):
        folder, count = next(iter(folders.items()))
        raise PushError(
            f"{folder} has {count:,} files, and the hub takes {FOLDER_FILES:,} in a folder: tokenize with a larger "
            "input.clips_per_shard, or larger tars"
        )
    api = HfApi(token=token)
    with _translate_errors(repo):
        _open_repo(api, repo, public)
        there = _listing(api, repo)
    digests = _digests(output)
    _check_same_dataset(output, repo, there)
    additions = _additions(output, plan, there, digests, sent)
    with _translate_errors(repo):
        while batch := list(_uploaded(api, repo, islice(additions, COMMIT_FILES))):
            api.create_commit(repo, batch, commit_message=f"Add {len(batch)} files", repo_type="dataset")
    return f"{api.endpoint}/datasets/{repo}"


def hub_token() -> str:
    """The token in the environment. Raises PushError if there is none."""
    token = os.environ.get("HF_TOKEN")
    if not token:
        raise PushError("no token: put one with write access into the environment variable HF_TOKEN")
    return token


def check_repo(repo: str) -> None:
    """Raises ValueError unless the name is OWNER/NAME."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo):
        raise ValueError(f"{repo}: the name of a repo is OWNER/NAME, such as me/demo-codes")


def _check_whole(output: Output, present: Container[str]) -> None:
    """Check that every committed shard has its data, and its rejects if its manifest counts some."""
    layout, without_rejects = output.layout, {}
    for spec in output.committed:
        if storage.relative(layout.data(spec), layout.root) not in present:
            raise layout.gone(layout.data(spec))
        if storage.relative(layout.rejects(spec), layout.root) not in present:
            without_rejects[spec.shard_id] = spec
    for manifest in read_manifests(layout, set(without_rejects)):
        if manifest.rejects:
            raise layout.gone(layout.rejects(without_rejects[manifest.shard_id]))


def _shard_paths(output: Output) -> list[str]:
    paths = []
    layout = output.layout
    for spec in output.committed:
        uris = (layout.data(spec), layout.rejects(spec), layout.manifest(spec.shard_id))
        paths += [storage.relative(uri, layout.root) for uri in uris]
    return paths


def _open_repo(api: HfApi, repo: str, public: bool) -> None:
    try:
        private = api.dataset_info(repo).private
    except RepositoryNotFoundError:
        api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True)
        return
    if not private and not public:
        raise PushError(f"{repo}: this repo is public: push with --public if everybody may see the codes")


def _listing(api: HfApi, repo: str) -> dict[str, RepoFile]:
    entries = api.list_repo_tree(repo, recursive=True, repo_type="dataset")
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _check_same_dataset(output: Output, repo: str, there: Mapping[str, RepoFile]) -> None:
    record = there.get(FIRST[0])
    if record is not None and not _same(record, storage.read_bytes(output.layout.run)):
        raise PushError(f"{repo}: holds another dataset of codes: push into a repo of its own")


def _digests(output: Output) -> dict[str, str]:
    """SHA-256 of the objects of shards by path, from the manifests."""
    known: dict[str, str] = {}
    layout = output.layout
    specs = {spec.shard_id: spec for spec in output.specs}
    for manifest in read_manifests(layout, output.done):
        spec = specs[manifest.shard_id]
        for uri, digest in ((layout.data(spec), manifest.sha256), (layout.rejects(spec), manifest.rejects_sha256)):
            known[storage.relative(uri, layout.root)] = digest
    return known


def _additions(
    output: Output,
    plan: Push,
    there: Mapping[str, RepoFile],
    digests: Mapping[str, str],
    sent: Callable[[str, bool], None],
) -> Iterator[CommitOperationAdd]:
    """Yields an operation for each object that the repo does not have, or has with other contents."""
    for path, size in plan.sizes.items():
        remote, digest = there.get(path), digests.get(path)
        if remote is not None and remote.lfs is not None and (remote.size, remote.lfs.sha256) == (size, digest):
            sent(path, False)
            continue
        data = storage.read_bytes(storage.join(output.layout.root, path))
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            raise PushError(f"{path}: differs from its manifest: run moss-tok verify")
        if remote is not None and _same(remote, data):
            sent(path, False)
            continue
        sent(path, True)
        yield CommitOperationAdd(path, data)


def _same(remote: RepoFile, data: bytes) -> bool:
    """Whether the contents are equal. The hub knows the SHA-256 of large files, and git's hash of the others."""
    if remote.lfs is not None:
        return remote.lfs.sha256 == hashlib.sha256(data).hexdigest()
    return remote.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _uploaded(api: HfApi, repo: str, additions: Iterator[CommitOperationAdd]) -> Iterator[CommitOperationAdd]:
    """Yields the same operations. Contents of large files are sent and freed, so that not all are in memory at once."""
    waiting: list[CommitOperationAdd] = []
    held = 0
    for addition in additions:
        waiting.append(addition)
        held += addition.upload_info.size
        if held >= UPLOAD_BYTES:
            yield from _preuploaded(api, repo, waiting)
            waiting, held = [], 0
    yield from _preuploaded(api, repo, waiting)


def _preuploaded(api: HfApi, repo: str, additions: Sequence[CommitOperationAdd]) -> Sequence[CommitOperationAdd]:
    if additions:
        api.preupload_lfs_files(repo, additions, repo_type="dataset")
    return additions


@contextmanager
def _translate_errors(repo: str) -> Iterator[None]:
    """Turns errors of the hub's client libraries into PushError with a remedy."""
    try:
        yield
    except HfHubHTTPError as error:
        raise PushError(f"{repo}: the hub refused: {error.server_message or error}") from error
    except (OfflineModeIsEnabled, _ClientError, ConnectionError) as error:
        raise PushError(
            f"{repo}: cannot reach the hub at {constants.ENDPOINT}: {error}: run the same command again where it can "
            "be reached: it continues; --dry-run needs no network"
        ) from error
