"""Too little memory for a run, said in one line with what makes it need less."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class OutOfMemoryError(ValueError):
    """A device or the machine has too little memory for the run."""


@contextmanager
def naming_full_memory() -> Iterator[None]:
    """Turn an allocation that fails inside the block into one sentence.

    Raises:
        OutOfMemoryError: An allocation failed; any other error passes unchanged.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # on a CPU torch has no class of its own for it
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and (
            "can't allocate memory" not in str(error)
        ):
            raise
        reason = " ".join(str(error).split())[:160]
        raise OutOfMemoryError(
            "The run does not fit into memory; lower training.batch_size (and raise "
            "training.gradient_accumulation), data.sequence_length or the model's sizes, or set "
            f"training.gradient_checkpointing=true ({reason})."
        ) from error
