"""Keeps the memory that a step frees: on a CPU the next step takes the same tensors again."""

import ctypes
import os
import sys

# of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30
OWN_SETTINGS = frozenset({"GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"})


def keep_freed_memory() -> bool:
    """Let glibc keep up to a gigabyte of freed memory instead of giving it back to the system.

    It would map every large tensor anew, and the system would clear its pages first: a third of
    the time of a training step of `drt_tiny` on a CPU.

    Returns:
        Whether it was set: not without glibc, nor where the environment has settings of its own.
    """
    if sys.platform != "linux" or OWN_SETTINGS & os.environ.keys():
        return False
    # other C libraries have no such function
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(name, KEPT_BYTES) for name in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
