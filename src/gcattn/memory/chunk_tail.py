"""The end of the last finished chunk, on which the next chunk's keys and landmark depend.

Shapes: B batch, F finished chunks, n tokens, E hidden size.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gcattn.memory.carried import CarriedState


class ChunkEnds(NamedTuple):
    """The last n tokens of each chunk, encoded; padded with zeros in front."""

    states: Tensor  # [B, F, n, E]
    lengths: Tensor  # [B, F], how many there are; 0 where the row has fewer chunks


class ChunkTail(CarriedState):
    """The end of each row's last finished chunk, and that chunk's document."""

    def extend(
        self, ends: ChunkEnds, documents: Tensor | None, *, is_even: bool = False
    ) -> ChunkEnds:
        """Return the end of the chunk before each chunk; empty where its document has none.

        Args:
            ends: Of the chunks that the call finished.
            documents: Document of each chunk, [B, F]; None: all are of one document.
            is_even: Whether all rows finished F >= 1 chunks of their first document.
        """
        before, document = self._before(ends)
        states = torch.cat([before.states, ends.states], dim=1)  # [B, F + 1, n, E]
        lengths = torch.cat([before.lengths, ends.lengths], dim=1)
        previous = ChunkEnds(states[:, :-1], lengths[:, :-1])
        if documents is None:
            return previous
        if is_even:
            if self.remembers:
                self._held = {
                    "states": states[:, -1].detach().clone(),
                    "length": lengths[:, -1].clone(),
                    "document": documents[:, -1].clone(),
                }
            return previous  # empty where there is none
        documents = torch.cat([document, documents], dim=1)
        if self.remembers:
            num_finished = (ends.lengths > 0).sum(1)
            last = torch.arange(len(num_finished), device=num_finished.device), num_finished
            self._held = {
                "states": states[last].detach(),
                "length": lengths[last],
                "document": documents[last],
            }
        follows = documents[:, 1:] == documents[:, :-1]
        return ChunkEnds(
            torch.where(follows[..., None, None], previous.states, 0),
            torch.where(follows, previous.lengths, 0),
        )

    def _before(self, ends: ChunkEnds) -> tuple[ChunkEnds, Tensor]:
        """Return the kept end as one chunk, and its document [B, 1]; -1 for none."""
        if self._held:
            states, length, document = (
                self._held[name].unsqueeze(1) for name in ("states", "length", "document")
            )
            return ChunkEnds(states.to(ends.states.dtype), length), document
        B, _, num_tokens, E = ends.states.shape
        length = ends.lengths.new_zeros(B, 1)
        states = ends.states.new_zeros(B, 1, num_tokens, E)
        return ChunkEnds(states, length), torch.full_like(length, -1)
