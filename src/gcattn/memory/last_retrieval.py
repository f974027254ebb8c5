"""What the last landmark retrieved in one retrieval group, for use by the open chunk.

The block after landmark c reads what landmark c retrieved, so the first block of a call reads what
was retrieved in an earlier call.

Shapes: B batch, C blocks, F finished chunks, K retrieved chunks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gcattn.chunking import ChunkLayout
from gcattn.memory.carried import CarriedState
from gcattn.memory.chunk_source import ChunkSource, RetrievedChunks
from gcattn.ops.chunk_topk import ChunkSelection


class LastRetrieval(CarriedState):
    """Indices and weights [B, K] of each row's last landmark, and its document [B].

    Attributes:
        tells_host: What is retrieved is copied to the host, which then fetches it.
    """

    def __init__(self, *, remembers: bool = True) -> None:
        super().__init__(remembers=remembers)
        self.tells_host = False
        self._retrieved: HostCopy | None = None

    def take_retrieved(self) -> "HostCopy | None":
        """Return the indices of the last landmarks [B, K], once; None if nothing was retrieved."""
        retrieved, self._retrieved = self._retrieved, None
        return retrieved

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | {"_retrieved": None}

    def extend(
        self, selection: ChunkSelection, layout: ChunkLayout, num_blocks: int
    ) -> ChunkSelection:
        """Shift each selection to the block that uses it, [B, F, K] → [B, C, K].

        Args:
            selection: What the call's landmarks retrieved.
            layout: Of the call; a block reads nothing if its landmark is of another document.
            num_blocks: C.
        """
        held = self._held
        # blocks after the one that follows the last landmark read nothing
        behind = num_blocks - 1 - selection.indices.shape[1]
        if held:
            held, wide = _of_one_width(held, selection)
            indices = torch.cat([held["indices"].unsqueeze(1), wide.indices], dim=1)
            weights = torch.cat([held["weights"].unsqueeze(1), wide.weights], dim=1)
            if behind > 0:
                indices = F.pad(indices, (0, 0, 0, behind), value=-1)
                weights = F.pad(weights, (0, 0, 0, behind))
            indices, weights = indices[:, :num_blocks], weights[:, :num_blocks]
        else:
            indices = F.pad(selection.indices, (0, 0, 1, behind), value=-1)
            weights = F.pad(selection.weights, (0, 0, 1, behind))
        may_serve = layout.may_serve(held.get("documents"))
        if self.remembers and layout.num_finished_chunks:
            self.keep(selection, layout)
            if self.tells_host:
                self._retrieved = HostCopy(self._held["indices"])
        if may_serve is None:
            return ChunkSelection(indices, weights)
        same = may_serve[:, :num_blocks, None]
        return ChunkSelection(torch.where(same, indices, -1), torch.where(same, weights, 0))

    def fetch(self, memory: ChunkSource, served: ChunkSelection) -> RetrievedChunks:
        """Fetch the chunks that `extend` chose."""
        return memory.fetch(served.indices, served.weights)

    def keep(self, selection: ChunkSelection, layout: ChunkLayout) -> None:
        """Keep what each row's last landmark of a call retrieved."""
        assert layout.chunk_documents is not None  # only a call that keeps nothing leaves them out
        if layout.is_even:
            self._held = {
                "indices": selection.indices[:, -1].clone(),
                "weights": selection.weights[:, -1].detach().clone(),
                "documents": layout.chunk_documents[:, -1].clone(),
            }
            self._retrieved = None
            return
        held = self._held
        if held:
            held, selection = _of_one_width(held, selection)
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
            self._held[name] = torch.where(has_new, x, held.get(name, nothing[name]))
        self._retrieved = None


def _of_one_width(
    held: dict[str, Tensor], selection: ChunkSelection
) -> tuple[dict[str, Tensor], ChunkSelection]:
    """Pad the narrower of the two with empty slots: calls of a stream may differ in K."""
    missing = selection.indices.shape[-1] - held["indices"].shape[-1]
    if missing > 0:
        indices, weights = _padded(held["indices"], held["weights"], missing)
        held = held | {"indices": indices, "weights": weights}
    elif missing < 0:
        selection = ChunkSelection(*_padded(*selection, -missing))
    return held, selection


def _padded(indices: Tensor, weights: Tensor, missing: int) -> tuple[Tensor, Tensor]:
    return F.pad(indices, (0, missing), value=-1), F.pad(weights, (0, missing))


class HostCopy:
    """A small tensor being copied to the host, as soon as it is computed."""

    def __init__(self, x: Tensor) -> None:
        self._copy, self._arrived = x, None
        if x.is_cuda:
            self._copy = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
            self._copy.copy_(x, non_blocking=True)
            self._arrived = torch.cuda.current_stream(x.device).record_event()

    def wait(self) -> Tensor:
        """Wait for the copy and return it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._copy
