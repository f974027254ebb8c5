"""What the models return.

Shapes: B batch, T tokens, F finished chunks, K retrieved chunks, E hidden size, V vocabulary.
"""

from dataclasses import dataclass

from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from gcattn.ops.chunk_topk import ChunkSelection


@dataclass
class DRTModelOutput(BaseModelOutputWithPast):
    """Hidden states [B, T, E], the cache, and on request what each group's landmarks retrieved."""

    retrieval: tuple[ChunkSelection, ...] | None = None


@dataclass
class DRTCausalLMOutput(CausalLMOutputWithPast):
    """Loss, logits [B, T, V], the cache, and on request what each group's landmarks retrieved.

    `retrieval[r].indices[b, c]` are the chunks that the c-th landmark of row b in this call
    retrieved in group r, best first, -1 where there were fewer than K; `retrieval[r].weights` are
    their weights.
    """

    retrieval: tuple[ChunkSelection, ...] | None = None
