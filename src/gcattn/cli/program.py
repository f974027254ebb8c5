"""Runs a command line and words its errors: one line, whatever the program is called."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

TRACEBACK_VARIABLE = "GCATTN_TRACEBACK"
# packages that come with an extra only
EXTRAS = {
    "accelerate": "train",
    "datasets": "train",
    "pyarrow": "train",
    "tensorboard": "train",
    "matplotlib": "eval",
    "rouge_score": "eval",
}
_OUT_OF_MEMORY = re.compile("MemoryError|out of memory|(can't|cannot) allocate|not enough memory")
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# what typer raises for a wrong command line, whichever copy of click it uses
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]


class _Interrupted(Exception):
    """Ctrl-C outside of training, which saves first and ends in its own way."""


class Group(TyperGroup):
    """Keep Ctrl-C apart from a command that ends with the same exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        return _apart(super().invoke, ctx)


class _Command(TyperCommand):
    """A program of one command, with Ctrl-C kept apart too."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        return _apart(super().invoke, ctx)


def run_command(
    command: Callable[..., None], program: str, arguments: Sequence[str] | None = None
) -> None:
    """Run a function as a program of its own, as `run_program` does.

    Args:
        command: Its annotations are the program's options.
        program: Its name in the help and before errors.
        arguments: The command line without the program; that of the process by default.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=_Command)(command)
    run_program(app, program, arguments)


def run_program(
    app: Callable[..., Any], program: str, arguments: Sequence[str] | None = None
) -> None:
    """Run a command and exit: 0 if it worked, 2 after one line on what is wrong with its input.

    Args:
        app: The commands.
        program: Its name in the help and before errors.
        arguments: The command line without the program; that of the process by default.
    """
    for stream in (sys.stdout, sys.stderr):
        # a terminal without our letters gets their numbers: nothing that was made is lost
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, prog_name=program, standalone_mode=False)
    except (ValueError, OSError, ImportError, _Interrupted, typer.Abort, _ClickError) as error:
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
        sys.exit(_report(error, program))
    except (MemoryError, RuntimeError) as error:
        if not _OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
            raise
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
        message = f"Out of memory, choose smaller sizes: {error}"
        sys.exit(_report(ValueError(message), program))
    sys.exit(code if isinstance(code, int) else 0)


def _apart(invoke: Callable[[Any], Any], ctx: Any) -> Any:
    try:
        return invoke(ctx)
    except KeyboardInterrupt as error:
        raise _Interrupted from error


def _report(error: Exception, program: str) -> int:
    """Print an error as one line and return the exit code that goes with it."""
    if type(error).__name__ == "NoArgsIsHelpError":
        # its message is the help that was asked for
        return 2
    code, message = 2, str(error)
    if isinstance(error, _Interrupted | typer.Abort):
        code, message = INTERRUPTED, "interrupted"
    elif isinstance(error, ImportError):
        message = _missing_package(error)
    elif isinstance(error, OSError) and error.strerror and error.filename is not None:
        message = f"{error.strerror}: {error.filename}"
    elif isinstance(error, _ClickError):
        message = error.format_message()  # type: ignore[attr-defined]
    line = " ".join(message.split()) or type(error).__name__
    print(f"{program}: error: {line}", file=sys.stderr)
    return code


def _missing_package(error: ImportError) -> str:
    """Say which extra brings the package that is missing; any other import error is a bug."""
    package = next((name for name in EXTRAS if name in str(error)), None)
    if package is None:
        raise error
    return f'this command needs {package}; install it with: pip install "gcattn[{EXTRAS[package]}]"'
