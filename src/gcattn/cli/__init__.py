"""The command `gcattn`: one file per command group, and one place that words errors.

Every command imports what it needs inside its body, so that `gcattn --help` answers at once.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gcattn import __version__
from gcattn.cli.bench import bench_app
from gcattn.cli.compare import compare
from gcattn.cli.data import data_app, tokenizer_app
from gcattn.cli.demo import demo
from gcattn.cli.evaluate import eval_app
from gcattn.cli.experiments import experiment_app
from gcattn.cli.generate import generate
from gcattn.cli.needle import needle
from gcattn.cli.train import train
from gcattn.cli.verify import verify

TRACEBACK_VARIABLE = "GCATTN_TRACEBACK"
# packages that come with an extra only
EXTRAS = {
    "accelerate": "train",
    "datasets": "train",
    "pyarrow": "train",
    "tensorboard": "train",
    "matplotlib": "eval",
}
_OUT_OF_MEMORY = re.compile("MemoryError|out of memory|(can't|cannot) allocate|not enough memory")
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class _Interrupted(Exception):
    """Ctrl-C outside of training, which saves first and ends in its own way."""


class _Program(TyperGroup):
    """Keep Ctrl-C apart from a command that ends with the same exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted from error


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, evaluate and use language models with causal retrieval of past chunks.",
    epilog=f"Errors are one line; {TRACEBACK_VARIABLE}=1 shows where they come from.",
)
app.add_typer(data_app, name="data")
app.add_typer(tokenizer_app, name="tokenizer")
app.command()(train)
eval_app.command()(needle)
app.add_typer(eval_app, name="eval")
app.command()(compare)
app.command()(generate)
app.command()(demo)
app.command()(verify)
app.add_typer(experiment_app, name="experiment")
app.add_typer(bench_app, name="bench")

# what typer raises for a wrong command line, whichever copy of click it uses
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 if it worked, 2 after one line on what is wrong with its input.

    Args:
        arguments: The command line without the program; that of the process by default.
    """
    for stream in (sys.stdout, sys.stderr):
        # a terminal without our letters gets their numbers: nothing that was made is lost
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, prog_name="gcattn", standalone_mode=False)
    except (ValueError, OSError, ImportError, _Interrupted, typer.Abort, _ClickError) as error:
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
        sys.exit(_report(error))
    except (MemoryError, RuntimeError) as error:
        if not _OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
            raise
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
        sys.exit(_report(ValueError(f"Out of memory, choose smaller sizes: {error}")))
    sys.exit(code if isinstance(code, int) else 0)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gcattn {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    pass


def _report(error: Exception) -> int:
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
    print(f"gcattn: error: {line}", file=sys.stderr)
    return code


def _missing_package(error: ImportError) -> str:
    """Say which extra brings the package that is missing; any other import error is a bug."""
    package = next((name for name in EXTRAS if name in str(error)), None)
    if package is None:
        raise error
    return f'this command needs {package}; install it with: pip install "gcattn[{EXTRAS[package]}]"'
