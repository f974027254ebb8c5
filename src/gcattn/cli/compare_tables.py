"""What `gcattn eval compare` prints: one table of losses, one of what retrieval is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def print_tables(metrics: dict[str, Any], file: Path) -> None:
    """Print the comparison in lines of at most 100 characters or so, and where it was written."""
    ends = metrics["positions"]
    texts = next(iter(metrics["models"].values()))["texts"]
    for text in texts:
        typer.echo(f"\n{text}: loss by position, nats per token")
        header = "".join(f"{_range(ends, i):>10}" for i in range(len(ends)))
        typer.echo(f"{'model':24}{header}{'grows':>9}{'share':>8}{'off':>8}{'random':>8}")
        for name, model in metrics["models"].items():
            typer.echo(_row(name, model["texts"][text]))
    typer.echo(
        f"\n{'model':24}{'rate':>8}{'params':>10}{'tokens':>10}{'GPUs':>6}{'tokens/s':>10}"
        f"{'GiB':>7}"
    )
    for name, model in metrics["models"].items():
        peak = model["peak_memory_gib"]
        typer.echo(
            f"{name:24}{model['learning_rate']:>8g}{model['parameters'] / 1e6:>9.1f}M"
            f"{model['tokens'] / 1e6:>9.0f}M{model['devices']:>6}{model['tokens_per_second']:>10,}"
            f"{'' if peak is None else f'{peak:.1f}':>7}"
        )
    for name in metrics["unfinished"]:
        typer.echo(f"unfinished: {name}")
    typer.echo(f"\n{file}")


def _row(name: str, text: dict[str, Any]) -> str:
    losses = text["loss"]["mean"]
    last = max(i for i, x in enumerate(losses) if x is not None)
    cells = "".join(f"{'' if x is None else f'{x:.4f}':>10}" for x in losses)
    grows = text.get("long_range_gain", {}).get("mean")
    share = text.get("share_of_gap", {}).get("mean", [None] * len(losses))[last]
    lost = [text.get(way, {}).get("mean", [None] * len(losses))[last] for way in ("off", "random")]
    return (
        f"{name:24}{cells}{_number(grows, '.4f'):>9}{_number(share, '.0%'):>8}"
        f"{_number(lost[0], '.4f'):>8}{_number(lost[1], '.4f'):>8}"
    )


def _number(x: float | None, form: str) -> str:
    return "" if x is None else format(x, form)


def _range(ends: list[int], index: int) -> str:
    begin = ends[index - 1] if index else 0
    return f"{_short(begin)}–{_short(ends[index])}"


def _short(number: int) -> str:
    return f"{number // 1024}K" if number and number % 1024 == 0 else str(number)
