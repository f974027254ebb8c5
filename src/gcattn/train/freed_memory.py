"""Keeps the memory that a step frees: on a CPU the next step takes the same tensors again."""

import ctypes
import os
import sys

# of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30
# of the machine's memory, what may lie freed between tensors in use
KEPT_SHARE = 0.25
_FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks")


class _Malloc(ctypes.Structure):
    """What glibc's mallinfo2 tells, in bytes."""

    _fields_ = [(name, ctypes.c_size_t) for name in (*_FIELDS, "fordblks", "keepcost")]


OWN_SETTINGS = frozenset({"GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"})


def keep_freed_memory() -> bool:
    """Let glibc keep the memory that a tensor of up to a gigabyte frees, for the next tensor.

    It would map every large tensor anew, and the system would clear its pages first: a third of
    the time of a training step of `drt_tiny` on a CPU. Where the sizes of tensors change from step
    to step, what is kept comes to lie in pieces that fit no other tensor, and grows: call
    `give_back_excess` between steps.

    Returns:
        Whether it was set: not without glibc 2.33 or newer, nor where the environment has settings
        of its own.
    """
    if sys.platform != "linux" or OWN_SETTINGS & os.environ.keys():
        return False
    libc = ctypes.CDLL(None)
    # other C libraries have no such functions
    if not (hasattr(libc, "mallopt") and hasattr(libc, "mallinfo2")):
        return False
    return all(libc.mallopt(name, KEPT_BYTES) for name in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))


def give_back_excess(most: float | None = None) -> bool:
    """Give freed memory back to the system if more than `most` bytes of it are held.

    Call it only after `keep_freed_memory` has returned True.

    Args:
        most: Bytes; by default a quarter of the machine's memory.

    Returns:
        Whether memory was given back.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    if most is None:
        most = KEPT_SHARE * page * os.sysconf("SC_PHYS_PAGES")
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _Malloc
    malloc = libc.mallinfo2()
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * page
    # a little more than is freed: code and Python's own objects are resident too
    if resident - malloc.uordblks - malloc.hblkhd <= most:
        return False
    libc.malloc_trim(0)
    return True
