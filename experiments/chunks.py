"""How large a chunk, and how many of them: S and K against needles, loss and speed.

Each model has the same parameters, window, rows and steps; only the grid differs. A chunk of S
slots costs one landmark, and a column reads K · S slots of what was retrieved.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.options import (
    Out,
    Runs,
    Samples,
    Seeds,
    Steps,
    Train,
    Validation,
    read_numbers,
)
from experiments.recipe import TASKS, Recipe, study_recipes
from gcattn.cli.paths import RESULTS
from gcattn.cli.program import run_command
from gcattn.evals.lengths import parse_lengths

SIZES = (16, 32, 64, 128)
# 32 chunks of 63 tokens, which other sizes come close to
ROW_TOKENS = 2016
WINDOW = 128


def chunk_recipes(sizes: Sequence[int], counts: Sequence[int]) -> dict[str, Recipe]:
    """Return a recipe for each size S and number K of retrieved chunks."""
    return {recipe_name(S, K): _recipe(S, K) for S in sizes for K in counts}


def recipe_name(size: int, count: int) -> str:
    """Return the name of a size and a number of chunks."""
    return f"S{size}-K{count}"


def _recipe(size: int, count: int) -> Recipe:
    model = {
        "chunk_size": size,
        "retrieval_top_k": count,
        "window_size": WINDOW,
        "landmark_pooling": True,
        # a quarter of the chunk before, as 16 of 64
        "landmark_overlap": size // 4,
    }
    return Recipe(
        f"{size} slots, {count} retrieved: {size * count:,} slots read",
        model,
        batch_size=2,
        row_tokens=ROW_TOKENS,
        tasks=replace(TASKS, exercises_per_row=8),
    )


def command(
    train: Train,
    validation: Validation,
    sizes: Annotated[
        str, typer.Option(help="Chunk sizes S to compare, in slots.")
    ] = "16,32,64,128",
    counts: Annotated[
        str, typer.Option(help="Numbers K of retrieved chunks to compare.")
    ] = "1,2,4,8,16",
    steps: Steps = 250,
    seeds: Seeds = 2,
    lengths: Annotated[
        str, typer.Option(help="Context lengths of the questions, such as 2k,16k.")
    ] = "2k,16k",
    samples: Samples = 4,
    runs: Runs = Path("runs/chunks"),
    out: Out = RESULTS,
) -> None:
    """Compare chunk sizes and numbers of retrieved chunks: needles, loss and speed."""
    from experiments.grid_plot import plot_grid

    all_sizes, all_counts = read_numbers("--sizes", sizes), read_numbers("--counts", counts)
    all_lengths = parse_lengths(lengths)

    def plot(metrics: dict[str, Any], file: Path) -> None:
        by_size = {(S, K): metrics[recipe_name(S, K)] for S in all_sizes for K in all_counts}
        plot_grid(by_size, all_sizes, all_counts, all_lengths, file)

    study_recipes(
        "chunks",
        chunk_recipes(all_sizes, all_counts),
        *(train, validation, runs, out),
        steps=steps,
        seeds=seeds,
        lengths=all_lengths,
        samples=samples,
        asked={
            "sizes": all_sizes,
            "counts": all_counts,
            "row_tokens": ROW_TOKENS,
            "window": WINDOW,
        },
        plot=plot,
    )


if __name__ == "__main__":
    run_command(command, "experiments.chunks")
