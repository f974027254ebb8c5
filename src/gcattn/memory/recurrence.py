"""State vectors passed from chunk to chunk, as in the Block-Recurrent Transformer.

Shapes: B batch, L columns, C blocks, F finished chunks, S slots per chunk, n states, E hidden size.
"""

import torch
from torch import Tensor

from gcattn.chunking import ChunkLayout
from gcattn.memory.carried import CarriedState


class RecurrentStates(CarriedState):
    """The states after each row's last finished chunk, [B, n, E], and its document [B]."""

    def before(
        self, initial: Tensor, layout: ChunkLayout, num_rows: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return the states at the start of the call, and the chunks that start from `initial`.

        Args:
            initial: What every document begins with, [n, E].
            layout: Of the call.
            num_rows: B.

        Returns:
            [B, n, E], and bool [B, F]: True where a chunk is the first one of its document; None if
            the call continues with one document from its beginning.
        """
        documents = layout.chunk_documents
        if documents is None:  # whole, fresh rows of one document
            return initial.expand(num_rows, -1, -1), None
        held = self._held.get("documents", torch.full_like(documents[:, :0].sum(1), -1))
        states = self._held.get("states", initial.expand(num_rows, -1, -1))
        asked = torch.cat([held[:, None], documents[:, :-1]], dim=1)[:, : documents.shape[1]]
        return states, asked != documents

    def serve(
        self, states: Tensor, initial: Tensor, layout: ChunkLayout, num_blocks: int
    ) -> Tensor:
        """Give each block the states before it, [B, F + 1, n, E] → [B, C, n, E].

        Args:
            states: Those before the call and after each of its chunks.
            initial: For blocks that continue no document, [n, E].
            layout: Of the call.
            num_blocks: C.
        """
        may_serve = layout.may_serve(self._held.get("documents"))
        behind = num_blocks - states.shape[1]  # blocks after the last landmark's: they are empty
        if behind > 0:
            more = initial.to(states.dtype).expand(states.shape[0], behind, -1, -1)
            states = torch.cat([states, more], dim=1)
        served = states[:, :num_blocks]
        if may_serve is not None:
            served = torch.where(may_serve[:, :num_blocks, None, None], served, initial)
        return served

    def keep(self, last: Tensor, layout: ChunkLayout) -> None:
        """Keep the states after each row's last chunk, [B, n, E], for the next call."""
        if not self.remembers or not layout.num_finished_chunks:
            return
        assert layout.chunk_documents is not None  # only a call that keeps nothing leaves them out
        finished = layout.num_finished
        rows = torch.arange(len(finished), device=finished.device)
        documents = layout.chunk_documents[rows, (finished - 1).clamp_min(0)]
        held = self._held.get("documents", torch.full_like(documents, -1))
        self._held["states"] = last.detach()
        self._held["documents"] = torch.where(finished > 0, documents, held)
