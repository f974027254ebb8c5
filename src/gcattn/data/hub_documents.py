"""Documents of a Hugging Face dataset, streamed: the part of `documents` that needs `datasets`."""

from collections.abc import Iterator
from typing import Any

from gcattn.data.text_column import check_column, pieces_of

_LOADERS = {"parquet": "parquet", "jsonl": "json", "json": "json", "txt": "text"}
_COMPRESSIONS = {"gz", "zst", "xz", "bz2"}


def read_hub_documents(
    name: str, text_column: str, split: str | None, config_name: str | None
) -> Iterator[Iterator[str]]:
    """Yield the text of every row, in pieces, without downloading the dataset first.

    Args:
        name: A dataset name such as "emozilla/pg19", or the address of data files such as
            "hf://datasets/EleutherAI/proof-pile-2/arxiv/train/*.jsonl.zst" (for datasets whose own
            loading script `datasets` no longer runs).
        text_column: Column that holds the text.
        split: Split to read, None for "train"; an address of data files has none to choose from.
        config_name: Configuration of the dataset, or None for its default.

    Raises:
        ValueError: The dataset can't be loaded, or has no such split, configuration or column.
    """
    for number, row in enumerate(open_hub_dataset(name, split, config_name), start=1):
        check_column(name, text_column, row)
        yield pieces_of(f"{name}, row {number}", text_column, row[text_column])


def open_hub_dataset(name: str, split: str | None, config_name: str | None) -> Any:
    """Open a dataset as a stream of rows; the arguments are those of `read_hub_documents`.

    Raises:
        ValueError: The dataset can't be loaded, or has no such split or configuration.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ValueError(
            f"{name!r} is not on this disk, and reading it from the Hugging Face hub needs the "
            "datasets library: pip install 'gcattn[train]'."
        ) from error
    if "://" in name and split not in (None, "train"):
        raise ValueError(
            f"{name!r} is an address of files, of which no split can be told apart; leave out "
            "--split and address the files of that split alone."
        )
    split = split or "train"
    try:
        if "://" in name:
            return load_dataset(_loader(name), data_files=name, split="train", streaming=True)
        return load_dataset(name, config_name, split=split, streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"Can't load {name!r} (configuration {config_name or 'default'}, split {split!r}) as a "
            f"local path or a Hugging Face dataset: {reason}"
        ) from error


def _loader(address: str) -> str:
    endings = address.rsplit("/", 1)[-1].split(".")[1:]
    for ending in reversed(endings):
        if ending in _LOADERS:
            return _LOADERS[ending]
        if ending not in _COMPRESSIONS:
            break
    raise ValueError(f"expected files named *.parquet, *.jsonl, *.json or *.txt, got {address!r}.")
