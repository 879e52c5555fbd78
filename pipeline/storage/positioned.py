"""The base class of seekable streams of known size."""

from __future__ import annotations

import io


class PositionedIO(io.RawIOBase):
    """A read-only stream of `size` bytes with a position. A subclass supplies `readinto`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if position < 0:
            raise OSError(f"seek to {position}, before the beginning")
        self._position = position
        return position
