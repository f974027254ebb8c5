"""How large a chunk, and how many of them: S and K against needles, loss and speed.

Each model has the same parameters, window, rows and steps; only the grid differs. A chunk of S
slots costs one landmark, and a column reads K · S slots of what was retrieved.
"""

from collections.abc import Sequence
from dataclasses import replace

from gcattn.experiments.recipe import TASKS, Recipe

SIZES = (16, 32, 64, 128)
COUNTS = (1, 2, 4, 8, 16)
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
