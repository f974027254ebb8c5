"""Sliding-window attention of one query in each row on a CPU, as in decoding.

Shapes: B batch, P + 1 columns, H query heads, G key/value heads, D head dim.
"""

import torch
from torch import Tensor

from gcattn.ops.native import MAX_HEAD_DIM, run_kernel, runs_native


def fits_kernel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    window_size: int,
) -> bool:
    """Say whether each row has one query, which reaches all keys; arguments as in `api`."""
    if q.shape[1] != 1 or k.shape[1] > window_size or q.shape[-1] > MAX_HEAD_DIM or q.shape[-1] % 2:
        return False
    documents = [x for x in (query_documents, key_documents) if x is not None]
    are_read = all(x.dtype == torch.long and x.is_contiguous() for x in documents)
    return are_read and k.stride() == v.stride() and k.stride(-1) == 1 and runs_native(len(q), q)


def native_single(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
) -> Tensor:
    """Attend with each row's query, [B, 1, H, D]; arguments as in `api`."""
    out = torch.empty_like(q)
    sizes = *k.shape[:2], q.shape[2], *k.shape[2:], *k.stride()[:3], torch.get_num_threads()
    arguments = q, k, v, query_documents, key_documents, out, *sizes
    run_kernel("read_window", q.dtype, arguments, [out])
    return out
