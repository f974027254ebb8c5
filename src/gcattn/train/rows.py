"""What happens to a micro-batch of rows on its way from the data to the model.

Shapes: B rows, T tokens per row.
"""

from typing import Any

from gcattn.chunking.labels import IGNORED


def cut_rows(batch: dict[str, Any], sequence_length: int) -> dict[str, Any]:
    """Cut rows of T tokens into pieces, [B, T] → [B · T / sequence_length, sequence_length].

    A plan describes whole rows, so rows that come with one are never cut.
    """
    if batch["input_ids"].shape[1] == sequence_length:
        return batch
    return {name: x.reshape(-1, sequence_length) for name, x in batch.items()}


def ignore_unpredicted(batch: dict[str, Any]) -> dict[str, Any]:
    """Take the first token of every row and document out of the labels, which nothing predicts.

    The model leaves them out by itself; here it is for the count of predicted tokens, by which the
    losses of all devices are divided.
    """
    labels = batch["labels"].clone()
    labels[:, 0] = IGNORED
    if "document_ids" in batch:
        labels[:, 1:][batch["document_ids"].diff() != 0] = IGNORED
    return {**batch, "labels": labels}


def most_chunks(num_tokens: int, chunk_size: int, forced_closes: int) -> int:
    """Return a number of chunks that no row exceeds when at most `forced_closes` close early."""
    return -(-num_tokens // (chunk_size - 1)) + forced_closes
