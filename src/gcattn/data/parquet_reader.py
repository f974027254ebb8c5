"""Documents of parquet files: a few rows at a time, a long text decoded piece by piece."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gcattn.data.text_column import PIECE, check_column, pieces_of

# rows of one batch, and the bytes that they may be of together
_MOST_ROWS = 32
_BATCH_BYTES = 2**25


def read_parquet(file: Path, text_column: str) -> Iterator[Iterator[str]]:
    """Yield the documents of a parquet file.

    Raises:
        ValueError: pyarrow is missing, the file is damaged, or it does not hold the column once.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            f"{file}: reading parquet needs pyarrow; install it with: pip install 'gcattn[train]'."
        ) from error
    row = 0
    try:
        with pyarrow.parquet.ParquetFile(file, buffer_size=PIECE, pre_buffer=False) as table:
            check_column(str(file), text_column, table.schema_arrow.names)
            for group in range(table.num_row_groups):
                batches = table.iter_batches(
                    batch_size=_rows_of_batch(table, group, text_column),
                    row_groups=[group],
                    columns=[text_column],
                )
                for batch in batches:
                    for value in batch.column(0):
                        row += 1
                        yield _pieces_of_value(f"{file}, row {row}", text_column, value)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: not a readable parquet file ({reason}).") from error


def _rows_of_batch(table: Any, group: int, text_column: str) -> int:
    """Return how many rows of a group fit a batch, going by their mean."""
    metadata = table.metadata.row_group(group)
    columns = [metadata.column(number) for number in range(metadata.num_columns)]
    size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema == text_column)
    return max(1, min(_MOST_ROWS, _BATCH_BYTES * metadata.num_rows // max(size, 1)))


def _pieces_of_value(place: str, text_column: str, value: Any) -> Iterator[str]:
    import pyarrow

    if not isinstance(value, pyarrow.StringScalar | pyarrow.LargeStringScalar) or (
        not value.is_valid
    ):
        yield from pieces_of(place, text_column, value.as_py())
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    buffer = memoryview(value.as_buffer())
    try:
        for start in range(0, len(buffer), PIECE):
            final = start + PIECE >= len(buffer)
            if text := decoder.decode(buffer[start : start + PIECE], final):
                yield text
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: expected UTF-8 text ({error.reason}).") from error
