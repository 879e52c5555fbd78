"""Large objects as a stream: several byte ranges are fetched at the same time, a bounded number ahead of the reader.

One connection to an object store is a fraction as fast as several, and each request waits for its first byte. A reader
that goes through an object from front to back finds the next ranges there. One that seeks gets what it asks for, and
ranges ahead of it are fetched only once it reads on from there.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias

from pipeline.storage.errors import StorageError, status_and_code, translate_errors
from pipeline.storage.location import Location
from pipeline.storage.positioned import PositionedIO
from pipeline.storage.retrying import RetryBudget

FIRST_RANGE = 2**20
RANGE = 4 * 2**20
AHEAD = 32 * 2**20
"""Limit of bytes of one stream that are requested and not yet read; the RANGE that is being read comes on top."""
RANGE_SECONDS = 60.0
"""A range that takes longer is requested again. Below 70 kB/s no range would ever be finished."""

Fetch: TypeAlias = Callable[[int, int], "Future[bytes]"]


class Gauge:
    """Counts the bytes that all streams of this process have requested and not yet released."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = 0
        self.peak = 0

    def add(self, count: int) -> None:
        with self._lock:
            self.now += count
            self.peak = max(self.peak, self.now)


gauge = Gauge()


@dataclass(slots=True)
class _Part:
    start: int
    stop: int
    data: Future[bytes]


class RangedStream(PositionedIO):
    """A seekable stream over `fetch(start, stop)`, which starts to fetch a range and returns a future at once."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        super().__init__(size)
        self._fetch = fetch
        self._read_to = 0
        """Where the last read ended."""
        self._window = 0
        """Number of bytes to have ahead of the reader."""
        self._parts: deque[_Part] = deque()
        """Neighbouring ranges. After a read the first of them holds the position."""

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        self._look_ahead(wanted)
        part = self._parts[0]
        data = memoryview(part.data.result())[self._position - part.start :][:wanted]
        buffer[: len(data)] = data
        self._position += len(data)
        self._read_to = self._position
        self._drop_read()
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, fewer only at the end of the object; a raw stream in general may return fewer
        anywhere."""
        left = self._size - self._position
        view = memoryview(bytearray(max(0, left if size is None or size < 0 else min(size, left))))
        filled = 0
        while filled < len(view):
            filled += self.readinto(view[filled:])
        return bytes(view)

    def close(self) -> None:
        self._drop_all()
        super().close()

    def _look_ahead(self, wanted: int) -> None:
        """Request the range at the position, and more behind it the longer the reader has read straight on."""
        self._drop_read()
        if self._position != self._read_to and not (self._parts and self._parts[0].start <= self._position):
            self._drop_all()
            self._window = 0
        elif self._position:
            self._window = min(AHEAD, max(FIRST_RANGE, 4 * self._window))
        end = self._parts[-1].stop if self._parts else self._position
        needed = min(self._position + wanted, self._position + AHEAD)
        goal = min(self._position + wanted + self._window, self._position + AHEAD, self._size)
        while end < needed or goal - end >= RANGE or end < goal == self._size:
            stop = min(end + RANGE, max(goal, end + FIRST_RANGE), self._size)
            gauge.add(stop - end)
            self._parts.append(_Part(end, stop, self._fetch(end, stop)))
            end = stop

    def _drop_read(self) -> None:
        while self._parts and self._parts[0].stop <= self._position:
            self._drop(self._parts.popleft())

    def _drop_all(self) -> None:
        while self._parts:
            self._drop(self._parts.popleft())

    def _drop(self, part: _Part) -> None:
        part.data.cancel()
        gauge.add(part.start - part.stop)


def fetcher(location: Location, version: str | None) -> Fetch:
    """A function that fetches ranges of an object on the loop of its asynchronous file system, with retries.

    `version` is an ETag: on S3 a range of any other version is refused, so that no stream mixes two.
    """
    filesystem, path, uri = location.filesystem, location.path, location.uri

    async def fetch_once(start: int, stop: int) -> bytes:
        if location.is_s3:
            data = await _get_range(filesystem, path, start, stop, version)
        else:
            data = await filesystem._cat_file(path, start=start, end=stop)
        if len(data) != stop - start:
            raise OSError(f"the answer to a request for {stop - start} bytes has {len(data)}")
        return data

    async def fetch(start: int, stop: int) -> bytes:
        budget = RetryBudget(uri, "read")
        with translate_errors(uri, "read"):
            while True:
                try:
                    return await asyncio.wait_for(fetch_once(start, stop), RANGE_SECONDS)
                except Exception as error:
                    if status_and_code(error)[0] == 412:
                        raise StorageError(f"{uri}: changed while it was read") from error
                    pause = budget.pause_after(error)
                await asyncio.sleep(pause)

    return lambda start, stop: asyncio.run_coroutine_threadsafe(fetch(start, stop), filesystem.loop)


async def _get_range(filesystem: Any, path: str, start: int, stop: int, version: str | None) -> bytes:
    bucket, key, version_id = filesystem.split_path(path)
    condition = {"IfMatch": version} if version else {}
    if version_id:
        condition["VersionId"] = version_id
    answer = await filesystem._call_s3(
        "get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", **condition
    )
    body: Any = answer["Body"]
    try:
        read: Awaitable[bytes] = body.read()
        return await read
    finally:
        body.close()
