"""Claims about memory that a training step frees: the next step finds it where it was."""

import subprocess
import sys

import pytest

from gcattn.train import freed_memory

# in a process of its own, without torch: the setting lasts as long as the process
PROGRAM = """
import ctypes, resource, runpy, sys
keep_freed_memory = runpy.run_path(sys.argv[1])["keep_freed_memory"]
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def take():
    taken = libc.malloc(100_000_000)
    libc.memset(taken, 1, 100_000_000)
    libc.free(taken)
kept = keep_freed_memory()
take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
take()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_memory_that_was_freed_is_not_cleared_again(monkeypatch):
    for name in freed_memory.OWN_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-c", PROGRAM, freed_memory.__file__]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, faults = map(int, result.stdout.split())
    if not kept:
        pytest.skip("this C library is not glibc")
    assert faults < 100  # of 24,000 pages


# blocks of a size that fits into no hole of the size before, with small ones in use between them
GROWING = """
import ctypes, runpy, sys
module = runpy.run_path(sys.argv[1])
if not module["keep_freed_memory"]():
    sys.exit()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
for size in range(1_000_000, 5_000_000, 1_000_000):
    blocks = [libc.malloc(size if i % 2 else 100) for i in range(100)]
    for block in blocks[1::2]:
        libc.memset(block, 1, size)
    for block in blocks[1::2]:
        libc.free(block)
    held = resident()
    given = module["give_back_excess"](int(sys.argv[2]))
    print(held, int(given), resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
@pytest.mark.parametrize(("most", "gives"), [(100_000_000, True), (10**12, False)])
def test_freed_memory_in_pieces_is_given_back_when_it_is_too_much(monkeypatch, most, gives):
    for name in freed_memory.OWN_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-c", GROWING, freed_memory.__file__, str(most)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    rounds = [tuple(map(int, line.split())) for line in result.stdout.splitlines()]
    if not rounds:
        pytest.skip("this C library is not glibc")
    assert [bool(given) for _, given, _ in rounds] == [
        gives and held > most for held, _, _ in rounds
    ]
    last = rounds[-1]
    assert last[0] > 150_000_000
    assert (last[2] < 100_000_000) == gives


@pytest.mark.parametrize("name", sorted(freed_memory.OWN_SETTINGS))
def test_settings_of_the_environment_stay(monkeypatch, name):
    monkeypatch.setenv(name, "131072")
    assert not freed_memory.keep_freed_memory()
