"""A retriever that does not learn, a peer: chunks are compared by an off-the-shelf text encoder.

The embedding of a finished chunk's text is both its landmark and its query. Everything else is a
DRT: the difference is that the language-model loss does not train the retrieval.

Shapes: B batch, T tokens, F finished chunks, S slots per chunk, P size of the embeddings.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.auto import AutoModel, AutoTokenizer

from gcattn.memory.stream import Stream

if TYPE_CHECKING:
    from gcattn.models.call_plan import CallPlan
    from gcattn.models.configuration_drt import DRTConfig

# tokens of each chunk, [n, S - 1], -1 after a short one → embeddings, [n, P]
ChunkEmbedder = Callable[[Tensor], Tensor]

# word pieces that sentence encoders were trained with
_MOST_PIECES = 256


def chunk_embeddings(
    embedder: ChunkEmbedder | None, input_ids: Tensor | None, plan: "CallPlan", stream: Stream
) -> Tensor:
    """Embed the chunks that a call finishes, [B, F, P].

    Raises:
        ValueError: There is no embedder, or the tokens are not known.
    """
    if embedder is None:
        raise ValueError(
            'retrieval_method = "fixed" compares chunks by an encoder of text: attach one with '
            "gcattn.models.baselines.attach_text_encoder(model, tokenizer)."
        )
    if input_ids is None:
        raise ValueError('retrieval_method = "fixed" needs input_ids: embeddings have no text.')
    layout = plan.layout
    # one more, since unused slots are zero; a 32-bit float is exact up to 2^24
    ids = (input_ids + 1).unsqueeze(-1).float()
    grid = layout.grid_from_columns(layout.columns_from_tokens(ids, ids.new_zeros(1)))
    grid = stream.open_chunk_ids.extend(grid, layout)  # [B, C, S, 1]
    chunks = grid[:, : layout.num_finished_chunks, :-1, 0].long() - 1  # [B, F, S - 1]
    with torch.no_grad():
        return embedder(chunks.flatten(0, 1)).unflatten(0, chunks.shape[:2])


class TextEncoder:
    """Embed chunks with a sentence encoder: the mean of its states, scaled to length 1.

    Args:
        tokenizer: Turns the chunks' tokens into text.
        source: Folder of the encoder, or its name on the hub; it runs on the tokens' device.
    """

    def __init__(self, tokenizer: Any, source: str) -> None:
        self._tokenizer = tokenizer
        # encoders count positions from the first piece
        self._pieces = AutoTokenizer.from_pretrained(source, padding_side="right")
        self._encoder: Any = AutoModel.from_pretrained(source).eval().requires_grad_(False)

    def __call__(self, chunks: Tensor) -> Tensor:
        """Embed chunks, [n, S - 1] → [n, P]; -1 stands after a short one."""
        if not len(chunks):
            return torch.zeros(0, self._encoder.config.hidden_size, device=chunks.device)
        rows = [[i for i in row if i >= 0] for row in chunks.tolist()]
        texts = self._tokenizer.batch_decode(rows, skip_special_tokens=True)
        pieces = self._pieces(
            texts, padding=True, truncation=True, max_length=_MOST_PIECES, return_tensors="pt"
        ).to(chunks.device)
        self._encoder.to(chunks.device)
        states = self._encoder(**pieces).last_hidden_state  # [n, pieces, P]
        used = pieces["attention_mask"].unsqueeze(-1).to(states.dtype)
        return F.normalize((states * used).sum(1) / used.sum(1).clamp_min(1), dim=-1)


def attach_text_encoder(model: nn.Module, tokenizer: Any) -> None:
    """Give a model with a fixed retriever the encoder that its configuration names.

    Args:
        model: A `DRTModel`, or a model around one.
        tokenizer: The model's own.

    Raises:
        OSError: There is no such encoder.
        ValueError: The configuration names none.
    """
    decoder: Any = getattr(model, "base_model", model)
    config: DRTConfig = decoder.config
    if config.fixed_retriever is None:
        raise ValueError('retrieval_method = "fixed" needs fixed_retriever, a model of sentences.')
    decoder.chunk_embedder = TextEncoder(tokenizer, config.fixed_retriever)
