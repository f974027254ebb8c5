"""Tables on any terminal: as they are where they fit, row by row where they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ANY_WIDTH = 10_000


def print_table(console: Console, table: Table, *, num_labels: int) -> None:
    """Print a table without cutting or breaking a cell.

    Args:
        console: Where to; its width decides.
        table: Cells of plain text.
        num_labels: Columns that name a row. Where the table is too wide they head its other cells.
    """
    wide = console.options.update(max_width=_ANY_WIDTH)
    if console.measure(table, options=wide).maximum <= console.width:
        console.print(table)
        return
    headers = [str(column.header) for column in table.columns]
    indent = 2 + max(map(len, headers[num_labels:]))
    for row in zip(*(column.cells for column in table.columns), strict=True):
        cells = [str(cell) for cell in row]
        _print(console, ", ".join(cell for cell in cells[:num_labels] if cell))
        for header, cell in zip(headers[num_labels:], cells[num_labels:], strict=True):
            if cell:
                _print(console, f"  {header:<{indent}}{cell}")
    if table.caption:
        _print(console, str(table.caption))


def _print(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
