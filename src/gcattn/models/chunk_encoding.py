"""The half of a model that makes a memory: the landmarks, keys and values of a text's chunks.

Shapes: B batch, T tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gcattn.memory.cache import DRTCache
from gcattn.memory.chunk_source import EncodedChunks
from gcattn.memory.stream import ReadingStream, Stream
from gcattn.models.call_plan import plan_call
from gcattn.models.outputs import HiddenStates
from gcattn.models.pretrained import DRTPreTrainedModel


class EncodesChunks(DRTPreTrainedModel):
    """What `DRTModel` is without its upper half."""

    # set and defined by DRTModel
    chunk_encoder: nn.Module | None
    _embed: Callable[..., Tensor]
    _with_embeddings: Callable[..., Any]
    _run_lower: Callable[..., Any]

    @torch.no_grad()
    def encode_chunks(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        chunk_breaks: Tensor | None = None,
        document_ids: Tensor | None = None,
        stream: ReadingStream | None = None,
    ) -> EncodedChunks:
        """Return the landmarks, keys and values of the chunks that a text fills; for inference.

        They depend only on the lower decoder and the chunk encoder, so nothing else runs: this is
        the quick way to make a memory. See `DRTForCausalLM.forward` for the arguments; pass a
        `stream` to read a text in segments.

        Raises:
            ValueError: The model retrieves nothing, the stream keeps chunks itself, or an argument
                has the wrong shape.
        """
        if self.chunk_encoder is None:
            raise ValueError('A model with retrieval_method="none" has no chunk memory to fill.')
        if isinstance(stream, DRTCache):
            raise ValueError(
                "stream must be a ReadingStream, which keeps no chunks, got a DRTCache: call the "
                "model with cache=… to read into it."
            )
        embeds, here = self._embed(input_ids, None), stream or Stream(self.config)
        plan = plan_call(
            self.config,
            (embeds.shape[0], embeds.shape[1]),
            embeds.device,
            here,
            attention_mask=attention_mask,
            chunk_breaks=chunk_breaks,
            document_ids=document_ids,
            num_logits=1,
        )
        plan = self._with_embeddings(input_ids, plan, here)
        _, _, encoded = self._run_lower(embeds, plan, here, HiddenStates(embeds, wanted=False))
        here.position.move(plan.state)
        assert isinstance(encoded, EncodedChunks)  # neither stream keeps chunks
        return encoded
