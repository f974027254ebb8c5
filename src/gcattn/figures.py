"""How all pictures look: size and resolution, ink, grid, and the way they are saved."""

from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gcattn.storage.whole import new_file

INK = "#22272e"
FAINT = "#d8dce2"
BLUE, ORANGE, GREY = "#1f6fb2", "#d9822b", "#7a828c"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches."""
    return Figure(figsize=(width, height), dpi=160, layout="constrained")


def make_plain(axes: Axes, grid: Literal["x", "y", "both"] = "y") -> None:
    """Draw a faint grid behind the data, and no frame above and to the right."""
    axes.grid(axis=grid, which="major", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, which="both")
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, file: str | Path) -> None:
    """Write a PNG, which appears whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    with new_file(file, "wb") as stream:
        figure.savefig(stream, format="png")
