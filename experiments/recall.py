"""Loss on what repeats a fact stated long before, apart from the loss on everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gcattn.evals.token_losses import token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gcattn.data.token_shards import TokenShards


@dataclass(frozen=True)
class RecallLoss:
    """Mean losses in nats per token."""

    recalled: float  # tokens that repeat an earlier fact
    other: float
    overall: float


def evaluate_recall(
    model: PreTrainedModel,
    shards: TokenShards,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> RecallLoss:
    """Measure the loss of recalled tokens and of all others.

    Args:
        model: A causal language model in evaluation mode.
        shards: Documents of the synthetic corpus, which marks what is recalled.
        on_progress: Called with the documents read so far and those in all.

    Returns:
        Mean losses over all documents.

    Raises:
        ValueError: The shards do not say what is recalled.
    """
    if shards.recall_mask is None:
        raise ValueError(
            f"{shards.folder} has no recall mask; make shards with: gcattn data synthetic."
        )
    losses, recalled = [], []
    for number in range(shards.num_documents):
        document = torch.from_numpy(shards.document(number).astype("int64"))
        start = int(shards.document_starts[number])
        mask = shards.recall_mask[start + 1 : start + len(document)]
        losses.append(token_losses(model, document))
        recalled.append(torch.from_numpy(mask.astype(bool)))
        if on_progress is not None:
            on_progress(number + 1, shards.num_documents)
    loss, is_recalled = torch.cat(losses).double(), torch.cat(recalled)
    return RecallLoss(
        recalled=float(loss[is_recalled].mean()),
        other=float(loss[~is_recalled].mean()),
        overall=float(loss.mean()),
    )
