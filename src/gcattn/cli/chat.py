"""`gcattn chat`: a conversation with one memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

from gcattn.cli.ask import AskedModel, AskedTier, NewTokens, Shown, Stop, show
from gcattn.cli.evaluate import Device, Dtype
from gcattn.cli.paths import expand


def chat(
    memory: Annotated[
        Path, typer.Option(metavar="DIR", callback=expand, help="Folder of a memory.")
    ],
    sources: Shown = 3,
    max_new_tokens: NewTokens = 64,
    stop: Stop = "\n",
    model: AskedModel = None,
    memory_tier: AskedTier = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Ask a memory a series of questions; an empty line or Ctrl-D ends the conversation.

    Each question sees the earlier turns; the memory does not change.
    """
    from rich.console import Console

    from gcattn.library.asking import open_library

    library = open_library(memory, model=model, device=device, dtype=dtype, memory_tier=memory_tier)
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    held = library.memory
    notes.print(f"{held.num_tokens:,} tokens of {len(held.documents):,} files; an empty line ends")
    conversation = library.conversation()
    while question := _next_question(notes):
        show(conversation.ask(question, max_new_tokens=max_new_tokens, stop=stop or None), sources)


def _next_question(notes: Console) -> str:
    notes.print("[bold]>[/] ", end="")
    try:
        return input().strip()
    except EOFError:
        return ""
