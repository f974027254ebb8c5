"""What the last landmark retrieved in one retrieval group: it serves the chunk that is open.

What landmark c retrieved serves the block behind it, so a call's first block is served by the
landmark of an earlier call.

Shapes: B batch, C blocks, F finished chunks, K retrieved chunks.
"""

import torch
import torch.nn.functional as F

from gcattn.chunking import ChunkLayout
from gcattn.memory.carried import CarriedState
from gcattn.ops.chunk_topk import ChunkSelection


class LastRetrieval(CarriedState):
    """Indices and weights [B, K] of each row's last landmark, and its document [B]."""

    def extend(
        self, selection: ChunkSelection, layout: ChunkLayout, num_blocks: int
    ) -> ChunkSelection:
        """Shift each selection to the block that it serves, [B, F, K] → [B, C, K].

        Args:
            selection: What the call's landmarks retrieved.
            layout: Of the call; a block of another document than its landmark gets nothing.
            num_blocks: C.
        """
        held = self._held
        # blocks behind the last landmark's have nothing
        behind = num_blocks - 1 - selection.indices.shape[1]
        if held:
            indices = torch.cat([held["indices"].unsqueeze(1), selection.indices], dim=1)
            weights = torch.cat([held["weights"].unsqueeze(1), selection.weights], dim=1)
            indices = F.pad(indices, (0, 0, 0, behind), value=-1)
            weights = F.pad(weights, (0, 0, 0, behind))
        else:
            indices = F.pad(selection.indices, (0, 0, 1, behind), value=-1)
            weights = F.pad(selection.weights, (0, 0, 1, behind))
        may_serve = layout.may_serve(held.get("documents"))
        if self.remembers and layout.num_finished_chunks:
            self._keep(selection, layout)
        if may_serve is None:
            return ChunkSelection(indices, weights)
        same = may_serve[:, :num_blocks, None]
        return ChunkSelection(torch.where(same, indices, -1), torch.where(same, weights, 0))

    def _keep(self, selection: ChunkSelection, layout: ChunkLayout) -> None:
        assert layout.chunk_documents is not None  # only a call that is forgotten leaves them out
        finished = layout.num_finished  # [B]
        rows = torch.arange(len(finished), device=finished.device)
        last = (finished - 1).clamp_min(0)
        new = {
            "indices": selection.indices[rows, last],
            "weights": selection.weights[rows, last].detach(),
            "documents": layout.chunk_documents[rows, last],
        }
        nothing = {"indices": -1, "weights": 0, "documents": -1}
        for name, x in new.items():
            has_new = (finished > 0).view(-1, *[1] * (x.dim() - 1))
            self._held[name] = torch.where(has_new, x, self._held.get(name, nothing[name]))
