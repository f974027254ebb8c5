"""Opening of data files, compressed or not, as a stream of bytes that notices damage."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from pathlib import Path
from typing import Any

_OPEN: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)


class DataFile:
    """The bytes of a file: .gz, .bz2, .xz and .zst are decompressed on the way.

    Args:
        file: What to open.

    Raises:
        OSError: The file can't be opened.
        ValueError: It is .zst and `zstandard` is not installed; while reading: it is not what its
            ending says, or it is damaged or cut short.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._damage: tuple[type[Exception], ...] = (*_DAMAGE, OSError)
        suffix = file.suffix.lower()
        if suffix == ".zst":
            self._stream = self._open_zstandard()
        else:
            self._stream = _OPEN.get(suffix, open)(file, "rb")

    def __enter__(self) -> DataFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.close()

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end."""
        return self._checked(self._stream.read, size)

    def readline(self, size: int) -> bytes:
        """Return the bytes up to the next line end, at most `size`; none at the end."""
        return self._checked(self._stream.readline, size)

    def _checked(self, read: Any, size: int) -> bytes:
        try:
            return read(size)
        except self._damage as error:
            # bz2 raises a bare OSError for damage; one of the system has a number
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"{self._file} is damaged or cut short ({error}).") from error

    def _open_zstandard(self) -> Any:
        try:
            import zstandard
        except ImportError as error:
            raise ValueError(
                f"{self._file}: reading .zst needs zstandard; install it with: "
                "pip install 'gcattn[zstd]'."
            ) from error
        from gcattn.data.zstandard_stream import ZstandardStream

        self._damage += (zstandard.ZstdError,)
        return ZstandardStream(self._file.open("rb"))
