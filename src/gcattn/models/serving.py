"""Which retrieval serves which block: what landmark c retrieved serves the block behind it.

Shapes: B batch, C blocks, F finished chunks, K retrieved chunks.
"""

import torch
import torch.nn.functional as F

from gcattn.chunking import ChunkLayout, RegularLayout
from gcattn.memory.cache import ServingRetrieval
from gcattn.ops.chunk_topk import ChunkSelection


def serve_blocks(
    selection: ChunkSelection,
    layout: ChunkLayout | RegularLayout,
    before: ServingRetrieval | None,
    num_blocks: int,
) -> ChunkSelection:
    """Shift each selection to the block that it serves, [B, F, K] → [B, C, K].

    The first block is served by what the last landmark before the call retrieved, if there is one.
    A block whose chunk belongs to another document than the landmark before it gets nothing.
    """
    indices, weights = selection
    if isinstance(layout, RegularLayout):
        before_first = (0, 0, 1, num_blocks - 1 - indices.shape[1])
        return ChunkSelection(F.pad(indices, before_first, value=-1), F.pad(weights, before_first))
    if before is None:
        carried = torch.full_like(layout.first_chunk, -1)
        indices = F.pad(indices, (0, 0, 1, 0), value=-1)
        weights = F.pad(weights, (0, 0, 1, 0))
    else:
        carried = torch.where(layout.continues, before.documents, -1)
        indices = torch.cat([before.indices.unsqueeze(1), indices], dim=1)
        weights = torch.cat([before.weights.unsqueeze(1), weights], dim=1)
    indices, weights = indices[:, :num_blocks], weights[:, :num_blocks]

    documents = layout.chunk_document  # [B, C] of the chunks behind the landmarks
    asked_by = torch.cat([carried.unsqueeze(1), documents], dim=1)[:, :num_blocks]
    read_by = F.pad(documents, (0, 1), value=-1)[:, :num_blocks]
    # behind a row's last landmark there may be no chunk yet: nothing but the landmark reads there
    same = ((asked_by == read_by) | (read_by == -1)).unsqueeze(-1)
    return ChunkSelection(torch.where(same, indices, -1), torch.where(same, weights, 0))


def serving_after(
    selection: ChunkSelection,
    layout: ChunkLayout | RegularLayout,
    before: ServingRetrieval | None,
) -> ServingRetrieval | None:
    """Return what serves the chunk that is open after the call; None where no call follows."""
    if isinstance(layout, RegularLayout):
        return None
    num_finished = layout.num_finished  # [B]
    if layout.num_finished_chunks == 0:
        return before
    rows = torch.arange(num_finished.shape[0], device=num_finished.device)
    last = (num_finished - 1).clamp_min(0)
    new = ServingRetrieval(
        selection.indices[rows, last],
        selection.weights[rows, last].detach(),
        layout.chunk_document[rows, last],
    )
    if before is None:
        before = ServingRetrieval(
            torch.full_like(new.indices, -1),
            torch.zeros_like(new.weights),
            torch.full_like(new.documents, -1),
        )
    finished = num_finished > 0
    return ServingRetrieval(
        torch.where(finished[:, None], new.indices, before.indices),
        torch.where(finished[:, None], new.weights, before.weights),
        torch.where(finished, new.documents, before.documents),
    )
