"""`python -m benchmarks.check`: are the kernels and captured tokens right on this GPU?

Real sizes in bfloat16, which the interpreter of the tests cannot run: the operators against the
reference within twice its own error, twice with the same bits, compiled as eager; tokens in fixed
shapes, captured as graphs, against planned calls.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer

from benchmarks.check_operators import OPERATOR_CHECKS
from benchmarks.check_tokens import TOKEN_CHECKS
from benchmarks.report import progress_console
from gcattn.cli.program import run_command

CHECKS = {"ops": OPERATOR_CHECKS, "decode": TOKEN_CHECKS}


def command(
    parts: Annotated[
        list[str] | None, typer.Argument(help="What to check: ops, decode (default: both).")
    ] = None,
) -> None:
    """Run every check, say which fail, and exit with 1 if one does."""
    if unknown := [part for part in parts or () if part not in CHECKS]:
        raise ValueError(f"Parts are {', '.join(CHECKS)}; got {', '.join(unknown)}.")
    if not torch.cuda.is_available():
        raise ValueError("These checks need a GPU; on a CPU the tests run the same kernels.")
    console = progress_console()
    console.print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    failed = []
    for part in parts or CHECKS:
        for name, check in CHECKS[part].items():
            try:
                console.print(f"{name}: {check()}")
            except AssertionError as error:
                failed.append(name)
                console.print(f"{name}: WRONG: {error}")
    if failed:
        console.print(f"wrong: {', '.join(failed)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(command, "benchmarks.check")
