"""Odd and hostile WebDataset tars, each with its clips in order: key, and "row" or the reason of the reject."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.hostile.files import Trap
from tests.moss_tok.audio_material import clip


def tar(*members: tuple[str, bytes] | tarfile.TarInfo, end: bool = True) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", encoding="utf-8", errors="surrogateescape") as file:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            data = b"" if isinstance(member, tarfile.TarInfo) else member[1]
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        stop = file.offset
    return sink.getvalue() if end else sink.getvalue()[:stop]


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def sound() -> bytes:
    return clip("flac 16")


def with_size(size: bytes) -> bytes:
    """A sound sample, and one whose header is well formed but for the size that it claims."""
    header = bytearray(tar(("b.wav", b""))[:512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return tar(("a.flac", sound()), end=False) + bytes(header) + bytes(2_048)


def cut_inside() -> bytes:
    whole = tar(("a.flac", sound()), ("b.flac", sound()), end=False)
    return whole[: -len(sound()) // 2]


def damaged_header() -> bytes:
    first = tar(("a.flac", sound()), end=False)
    return first + b"\xff" * 512 + tar(("c.flac", sound()))


Outcomes = list[tuple[str, str]]
DAMAGED = ("", "damaged_source")
TARS: dict[str, tuple[Callable[[], bytes], Outcomes]] = {
    "good.tar": (lambda: tar(("a.flac", sound()), ("a.txt", b"hello")), [("a", "row")]),
    "empty.tar": (lambda: tar(), []),
    "no-bytes.tar": (lambda: b"", [DAMAGED]),
    "page.tar": (lambda: b"<html>404</html>" * 100, [DAMAGED]),
    "cut-between-members.tar": (lambda: tar(("a.flac", sound()), end=False), [("a", "row"), DAMAGED]),
    "cut-inside-a-member.tar": (cut_inside, [("a", "row"), ("b", "damaged_source"), DAMAGED]),
    "damaged-header.tar": (damaged_header, [("a", "row"), DAMAGED]),
    "joined.tar": (lambda: 2 * tar(("a.flac", sound())), [("a", "row"), DAMAGED]),
    "8-EiB.tar": (
        lambda: with_size(b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7),
        [("a", "row"), ("b", "too_many_bytes"), DAMAGED],
    ),
    "negative.tar": (lambda: with_size(b"\xff" * 12), [("a", "row"), DAMAGED]),
    "links.tar": (
        lambda: tar(
            ("a.flac", sound()),
            special("hard.wav", tarfile.LNKTYPE, "a.flac"),
            special("soft.wav", tarfile.SYMTYPE, "/etc/passwd"),
            special("fifo.wav", tarfile.FIFOTYPE),
            special("device.wav", tarfile.CHRTYPE),
        ),
        [("a", "row"), *((name, "not_a_file") for name in ("hard", "soft", "fifo", "device"))],
    ),
    "escapes.tar": (
        lambda: tar(("../../up.flac", sound()), ("/etc/absolute.flac", sound())),
        [("../../up", "row"), ("/etc/absolute", "row")],
    ),
    "names.tar": (
        lambda: tar(("b\udcffd.flac", sound()), ("n" * 300 + ".flac", sound())),
        [("b\ufffdd", "row"), ("n" * 300, "row")],
    ),
    "duplicates.tar": (lambda: tar(("a.flac", sound()), ("a.flac", sound())), [("a", "row"), ("a", "row")]),
    "code.tar": (
        lambda: tar(
            ("a.flac", sound()),
            *((f"a.{ending}", pickle.dumps(Trap())) for ending in ("pyd", "pickle", "pt", "npy")),
            ("b.pth", pickle.dumps(Trap())),
        ),
        [("a", "row"), ("b", "no_audio")],
    ),
    "json.tar": (
        lambda: tar(
            *(("a.flac", sound()), ("a.json", b'{"cut')),
            *(("b.flac", sound()), ("b.json", b'{"a":' * 100_000)),
            *(("c.flac", sound()), ("c.json", b'{"text": ["x"], "speaker": 7, "n": NaN}')),
        ),
        [("a", "row"), ("b", "row"), ("c", "row")],
    ),
    "cut.tar.gz": (
        lambda: gzip.compress(tar(("a.flac", sound()), ("b.flac", sound())), mtime=0)[:-5_000],
        [("a", "row"), ("b", "damaged_source"), DAMAGED],
    ),
    "plain.tar.gz": (lambda: tar(("a.flac", sound())), [DAMAGED]),
}


def write_tars(folder: Path) -> None:
    folder.mkdir()
    for name, (make, _) in TARS.items():
        (folder / name).write_bytes(make())
