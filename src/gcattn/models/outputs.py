"""What the models return.

Shapes: B batch, T tokens, F finished chunks, K retrieved chunks, E hidden size, V vocabulary.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from gcattn.chunking import ChunkLayout
from gcattn.ops.chunk_topk import ChunkSelection


@dataclass
class DRTModelOutput(BaseModelOutputWithPast):
    """Hidden states [B, T, E], the cache, and on request what each group's landmarks retrieved.

    `document_ids` [B, T] are the documents of the call, in whatever form it was given them.
    """

    retrieval: tuple[ChunkSelection, ...] | None = None
    document_ids: Tensor | None = None


@dataclass
class DRTCausalLMOutput(CausalLMOutputWithPast):
    """Loss, logits [B, T, V], the cache, and on request what each group's landmarks retrieved.

    `retrieval[r].indices[b, c]` are the chunks that the c-th landmark of row b in this call
    retrieved in group r, best first, -1 where there were fewer than K; `retrieval[r].weights` are
    their weights.
    """

    retrieval: tuple[ChunkSelection, ...] | None = None


class HiddenStates:
    """Collects the hidden states of the tokens after every layer, if they are wanted.

    Args:
        embeds: Embeddings of the tokens, [B, T, E]: the first entry, through which gradients flow.
            Later entries are copies without the landmarks, through which none flow.
        wanted: Whether to collect anything.
    """

    def __init__(self, embeds: Tensor, *, wanted: bool) -> None:
        self._states: list[Tensor] | None = [embeds] if wanted else None

    def record(self, hidden: Tensor, layout: ChunkLayout) -> Tensor:
        """Collect what a layer returned, [B, L, E]; returns it unchanged."""
        if self._states is not None:
            self._states.append(layout.tokens_from_columns(hidden))
        return hidden

    def ending_with(self, normed: Tensor) -> tuple[Tensor, ...] | None:
        """Return what was collected, the last one normed [B, T, E]; None if nothing is wanted."""
        return None if self._states is None else (*self._states[:-1], normed)
