"""The command `gcattn`: one file per command group, in the order in which a user needs them.

Every command imports what it needs inside its body, so that `gcattn --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from gcattn import __version__
from gcattn.cli.answers import questions, summarization, summary_table
from gcattn.cli.ask import ask
from gcattn.cli.chat import chat
from gcattn.cli.compare import compare
from gcattn.cli.cores import share_cores
from gcattn.cli.data import data_app
from gcattn.cli.evaluate import eval_app
from gcattn.cli.finetune import finetune_app
from gcattn.cli.generate import generate
from gcattn.cli.memory import memory_app
from gcattn.cli.needle import needle
from gcattn.cli.program import TRACEBACK_VARIABLE, Group, run_program
from gcattn.cli.ruler import ruler
from gcattn.cli.train import train
from gcattn.cli.verify import verify

# as they are needed; typer would put groups last
ORDER = ("data", "train", "finetune", "eval", "generate", "memory", "ask", "chat", "verify")


class _InOrder(Group):
    """List the commands in `ORDER`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands."""
        return sorted(self.commands, key=ORDER.index)


app = typer.Typer(
    cls=_InOrder,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, evaluate and use language models with causal retrieval of past chunks.",
    epilog="gcattn verify FOLDER checks any folder that these commands wrote by its checksums. "
    f"Errors are printed as one line; set {TRACEBACK_VARIABLE}=1 to see the traceback.",
)
app.add_typer(data_app, name="data")
app.command()(train)
app.add_typer(finetune_app, name="finetune")
eval_app.command()(needle)
eval_app.command()(compare)
eval_app.command()(ruler)
eval_app.command()(questions)
eval_app.command()(summarization)
eval_app.command()(summary_table)
app.add_typer(eval_app, name="eval")
app.command()(generate)
app.add_typer(memory_app, name="memory")
app.command()(ask)
app.command()(chat)
app.command(hidden=True)(verify)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `gcattn`, as `run_program` does.

    Args:
        arguments: The command line without the program; that of the process by default.
    """
    share_cores()
    run_program(app, "gcattn", arguments)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gcattn {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass
