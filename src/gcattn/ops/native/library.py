"""Compiling and loading the kernels of `kernels.c`, once for each dtype.

No compiler is needed: without one, a CPU runs the lines in PyTorch that the kernels stand for.
What was compiled is kept in the user's cache, named by all that it was made of.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("kernels.c")
HEADER = SOURCE.with_name("shared_work.h")
# without -ffast-math: only loops that say so add in another order
OPTIONS = ["-O3", "-march=native", "-std=gnu11", "-fopenmp-simd", "-fPIC", "-shared"]
DTYPES = {torch.float32: [], torch.bfloat16: ["-DBFLOAT16"]}
COMPILE_SECONDS = 60

logger = logging.getLogger(__name__)


@cache
def load_kernels(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the kernels of a dtype; None if there are none here, which is logged with the reason.

    They are compiled when they are first wanted, which takes a second or two.
    """
    if dtype not in DTYPES or platform.system() == "Windows":
        return None
    compiler = _compiler()
    if compiler is None:
        reason = "there is no C compiler (cc, gcc or clang); CC can name one"
    else:
        try:
            return ctypes.CDLL(str(_compiled(compiler, DTYPES[dtype])))
        except subprocess.CalledProcessError as error:
            reason = f"{shlex.join(compiler)} failed: {error.stderr.strip()[-500:]}"
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
    logger.warning("A CPU decodes without compiled kernels, which is slower: %s.", reason)
    return None


def _compiler() -> list[str] | None:
    if "CC" in os.environ:
        named = shlex.split(os.environ["CC"])
        return named if named and shutil.which(named[0]) else None
    return next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def _compiled(compiler: list[str], more: list[str]) -> Path:
    """Return the library, compiling it if this machine has not done so before."""
    command = [*compiler, *OPTIONS, *more]
    sources = [file.read_text(encoding="utf-8") for file in (SOURCE, HEADER)]
    made_of = [*command, _version(compiler), _processor(), *sources]
    digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:32]
    path = _folder() / f"kernels_{digest}.so"
    if not path.exists():
        # processes that start together compile it each, and the last one's stays
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            new = Path(folder) / path.name
            _run([*command, str(SOURCE), "-o", str(new), "-lm", "-lpthread"])
            os.replace(new, path)
    return path


def _folder() -> Path:
    """Return a folder that is this user's alone, as code is loaded from it."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(cache_home).expanduser() / "gcattn"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # no home, or one that can't be written to
        pass
    return _temporary_folder()


@cache
def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="gcattn-"))


def _version(compiler: list[str]) -> str:
    return _run([*compiler, "--version"])


def _processor() -> str:
    """Describe what -march=native depends on: homes may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    known = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU part")
    return "\n".join(line for line in lines if line.split("\t")[0].strip(" :") in known)


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS
    )
    return done.stdout
