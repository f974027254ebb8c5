"""A scratch file of chunks, gone when the process ends: the tier "disk" of a stream.

Shapes: n chunks, S slots per chunk, G key/value heads, D head dim.
"""

import os
import tempfile
import threading
from typing import Any, Self

import torch
from torch import Tensor

from gcattn.storage.full_disk import naming_full_disk


class ScratchFile:
    """An unnamed file that only grows; copies of a stream share it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="gcattn-")  # noqa: SIM115
        self._lock = threading.Lock()
        self._end = 0

    def write(self, data: memoryview) -> int:
        """Append bytes; return their offset.

        Raises:
            DiskFullError: The disk is full.
        """
        with self._lock:
            at = self._end
            with naming_full_disk(tempfile.gettempdir()):
                done = 0
                while done < len(data):
                    done += os.pwrite(self._file.fileno(), data[done:], at + done)
            self._end = at + len(data)
        return at

    def read(self, at: int, data: memoryview) -> None:
        """Fill `data` with the bytes from `at` on."""
        done = 0
        while done < len(data):
            count = os.preadv(self._file.fileno(), [data[done:]], at + done)
            if not count:
                raise OSError(f"{tempfile.gettempdir()}: a scratch file ends too early.")
            done += count

    def prefetch(self, at: int, size: int) -> None:
        """Ask the operating system to bring bytes into its page cache."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), at, size, os.POSIX_FADV_WILLNEED)

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # nothing in it is ever overwritten


def bytes_of(x: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, without copying."""
    if not x.numel():
        return memoryview(bytearray())
    return x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
