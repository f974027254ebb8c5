"""Insert landmark tokens into plain ids and take them out again.

Shapes: B batch, T tokens, L columns.
"""

import torch
from torch import Tensor

from gcattn.chunking.layout import ChunkLayout
from gcattn.chunking.plan import plan_chunks


def insert_landmarks(
    input_ids: Tensor,
    chunk_size: int,
    landmark_token_id: int,
    *,
    attention_mask: Tensor | None = None,
    chunk_breaks: Tensor | None = None,
    document_ids: Tensor | None = None,
) -> tuple[Tensor, ChunkLayout]:
    """Put a landmark after every chunk, [B, T] → [B, L]; the model does this by itself.

    Args:
        input_ids: Plain token ids, [B, T].
        chunk_size: S slots per chunk: S - 1 tokens and the landmark.
        landmark_token_id: Id that marks a landmark; it also fills the unused columns at a row's
            end.
        attention_mask: 0 where a token is padding, [B, T].
        chunk_breaks: True where the chunk closes after this token, bool [B, T].
        document_ids: Document of each token, [B, T].

    Returns:
        Ids with landmarks, and the layout that says where everything went.

    Raises:
        ValueError: `chunk_size` is below 2 or `input_ids` already hold landmarks.
    """
    if chunk_size < 2:
        raise ValueError(
            f"chunk_size must be at least 2 (a token and a landmark), got {chunk_size}."
        )
    if bool((input_ids == landmark_token_id).any()):
        raise ValueError(
            f"input_ids hold the landmark token {landmark_token_id}; pass plain token ids."
        )
    layout, _ = plan_chunks(
        input_ids.shape[0],
        input_ids.shape[1],
        chunk_size,
        valid=attention_mask,
        chunk_breaks=chunk_breaks,
        document_ids=document_ids,
    )
    layout = layout.to(input_ids.device)
    landmark = torch.tensor(landmark_token_id, dtype=input_ids.dtype, device=input_ids.device)
    return layout.columns_from_tokens(input_ids, landmark), layout


def strip_landmarks(column_ids: Tensor, layout: ChunkLayout) -> Tensor:
    """Take the landmarks out again, [B, L] → [B, T]; padding comes back as 0."""
    return layout.tokens_from_columns(column_ids)
