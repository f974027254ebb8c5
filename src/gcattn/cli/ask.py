"""`gcattn ask`: a question to a memory, its answer and its sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gcattn.cli.evaluate import Device, Dtype
from gcattn.cli.limits import countable
from gcattn.cli.paths import expand

if TYPE_CHECKING:
    from gcattn.library.asking import Answer

# characters shown of a chunk
_SNIPPET = 160

AskedModel = Annotated[
    str | None,
    typer.Option(callback=expand, help="Folder of the model, if it has moved."),
]
AskedTier = Annotated[
    Literal["device", "host", "host-int8", "disk", "recompute"] | None,
    typer.Option(
        help="Where the memory is: disk (the default) reads keys and values from the folder when "
        "they are retrieved; other tiers load them first."
    ),
]
NewTokens = Annotated[
    int, typer.Option(min=1, callback=countable, help="Longest answer, in tokens.")
]
Shown = Annotated[int, typer.Option(min=0, max=1000, help="Retrieved chunks to show.")]
Stop = Annotated[
    str,
    typer.Option(
        show_default="a line break",
        help="Text that ends an answer, besides the end-of-text token.",
    ),
]


def ask(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", callback=expand, help="Folder of a memory.")
    ],
    question: Annotated[
        str,
        typer.Argument(
            metavar="QUESTION", help="A question of a kind that the model was trained on."
        ),
    ],
    sources: Shown = 3,
    max_new_tokens: NewTokens = 64,
    stop: Stop = "\n",
    model: AskedModel = None,
    memory_tier: AskedTier = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Answer QUESTION from the memory in DIR, and show the sources of the answer.

    Below the answer are the chunks retrieved for it, each with its weight, file, line and text.
    """
    from gcattn.library.asking import open_library

    library = open_library(folder, model=model, device=device, dtype=dtype, memory_tier=memory_tier)
    show(library.ask(question, max_new_tokens=max_new_tokens, stop=stop or None), sources)


def show(answer: Answer, num_sources: int) -> None:
    """Print an answer and the chunks with the largest weights."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    console.print(escape(answer.text or "(nothing)"))
    for source in answer.sources[:num_sources]:
        console.print(f"  [dim]{source.weight:4.0%}[/]  [bold]{escape(source.place)}[/]")
        console.print(f"        [dim]{escape(snippet(source.text, source.line_text))}[/]")


def snippet(text: str, line: str) -> str:
    """Return a chunk's text on one line, cut to the surroundings of one of its lines."""
    whole, wanted = " ".join(text.split()), " ".join(line.split())
    if len(whole) <= _SNIPPET:
        return whole
    middle = max(whole.find(wanted), 0) + len(wanted) // 2
    begin = min(max(middle - _SNIPPET // 2, 0), len(whole) - _SNIPPET)
    shown = whole[begin : begin + _SNIPPET]
    return ("…" if begin else "") + shown + ("…" if begin + _SNIPPET < len(whole) else "")
