"""Rows become a micro-batch, with the plan of the call, in the processes that read them.

Shapes: B rows, T tokens per row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from gcattn.models import DRTConfig, plan_ahead


@dataclass(frozen=True)
class Collator:
    """Stacks rows of one length and plans the call of `model`, or leaves planning to the model."""

    model: DRTConfig | None

    def __call__(self, rows: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
        """Return tensors [B, T] by name, and a plan in place of breaks, if there are any."""
        batch: dict[str, Any] = default_collate(list(rows))
        if "document_ids" in batch and not batch["document_ids"].diff().any():
            del batch["document_ids"]  # one document a row needs no table of places
        irregular = {name: batch.get(name) for name in ("chunk_breaks", "document_ids")}
        if self.model is None or all(x is None for x in irregular.values()):
            return batch
        B, T = batch["input_ids"].shape
        batch.pop("chunk_breaks", None)
        return batch | {"plan": plan_ahead(self.model, (B, T), **irregular)}
