"""Packed documents as transformers, TRL and FlashAttention mark them, turned into `document_ids`.

Collators that pack rows without padding mark documents by positions that restart, by `seq_idx`, or
by the places where documents begin. All of them say the same.

Shapes: B batch, T tokens.
"""

from typing import Any

import torch
from torch import Tensor

# arguments of attention kernels that collators pass besides and that follow from these
PACKING_ARGUMENTS = frozenset(
    {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"}
)


def packed_documents(
    shape: tuple[int, int],
    *,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    continues: bool,
    packing: dict[str, Any],
) -> Tensor | None:
    """Return the document of each token [B, T]; None if nothing says that there are several.

    Args:
        shape: (B, T).
        attention_mask: 0 where a token is padding, [B, T] or longer.
        position_ids: Positions, [T], [1, T] or [B, T]; a document begins where they do not grow.
        continues: The call continues from a cache.
        packing: The arguments among PACKING_ARGUMENTS.

    Raises:
        ValueError: Shapes do not fit, positions leave gaps, or documents are mixed with a cache.
    """
    if packing.get("seq_idx") is not None:
        return _whole(packing["seq_idx"], shape, "seq_idx")
    starts = packing.get("cu_seq_lens_q")
    if starts is not None:
        return _between(starts, shape)
    if position_ids is None or shape[1] == 1:
        return None
    positions = _whole(position_ids, shape, "position_ids")
    valid = torch.ones_like(positions, dtype=torch.bool)
    if attention_mask is not None:
        valid = attention_mask[:, -shape[1] :].bool()
    step = positions[:, 1:] - positions[:, :-1]
    both = valid[:, 1:] & valid[:, :-1]
    if bool((both & (step > 1)).any()):
        raise ValueError(
            "position_ids must count on from token to token, or start again where a document "
            "begins: a DRT's positions follow from its layout, and gaps cannot be given."
        )
    begins = torch.zeros_like(valid)
    begins[:, 1:] = valid[:, 1:] & (step <= 0)
    # padding on the left precedes the first document, which is the only one
    several = begins & (valid.cumsum(1) > 1)
    if not bool(several.any()):
        return None
    if continues:
        raise ValueError(
            "position_ids that restart cannot say whether the first document continues that of the "
            "cache; pass document_ids."
        )
    return begins.cumsum(1)


def _whole(x: Tensor, shape: tuple[int, int], name: str) -> Tensor:
    """Return [B, T] from what may be one row for all."""
    if x.shape[-1] != shape[1] or x.dim() > 2 or (x.dim() == 2 and x.shape[0] not in (1, shape[0])):
        raise ValueError(
            f"{name} must have shape [B, T] = {list(shape)}, or [1, T], got {list(x.shape)}."
        )
    return x.expand(shape)


def _between(starts: Tensor, shape: tuple[int, int]) -> Tensor:
    """Number the documents of one flat row by where they begin, [documents + 1]."""
    if shape[0] != 1 or int(starts[-1]) != shape[1]:
        raise ValueError(
            f"cu_seq_lens_q must end with the tokens of one row, [B, T] = [1, {int(starts[-1])}], "
            f"got {list(shape)}."
        )
    tokens = torch.arange(shape[1], device=starts.device)
    return torch.searchsorted(starts[1:].contiguous(), tokens, right=True).unsqueeze(0)
