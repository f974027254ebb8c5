"""A .zst file as a stream of bytes; one that ends early is noticed, as with the other formats."""

import io
from typing import BinaryIO

import zstandard

# little, since it may grow a thousandfold
_READ_BYTES = 2**14


class ZstandardStream(io.BufferedReader):
    """Decompressed bytes of all frames of a file, which it closes."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(_Frames(file), 2**20)


class _Frames(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target) -> int:  # type: ignore[no-untyped-def]
        while not self._ready:
            given = self._frame.unused_data if self._frame.eof else b""
            given = given or self._file.read(_READ_BYTES)
            if not given:
                if self._begun and not self._frame.eof:
                    raise EOFError("the last frame has no end")
                return 0
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._begun = True
            self._ready = memoryview(self._frame.decompress(given))
        size = min(len(target), len(self._ready))
        target[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()
