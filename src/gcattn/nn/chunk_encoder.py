"""Chunk encoder: reads each finished chunk in both directions (paper, section 3.1).

Its output at the landmark slot is the chunk's landmark, what the retriever scores; linear maps of
its outputs are the keys and values that every upper layer reads.

Shapes: B batch, F finished chunks, S slots per chunk, H heads, G key/value heads, D head dim,
E hidden size.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcattn.memory.chunk_tail import ChunkEnds, ChunkTail
from gcattn.nn.convolution import SlotConvolution
from gcattn.nn.mlp import SwiGLU
from gcattn.nn.projections import project
from gcattn.nn.rms_norm import RMSNorm, add_and_norm
from gcattn.ops.implementation import multiplies_slowly
from gcattn.ops.pointwise import Rotation, rotary_angles, rotate

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


class EncoderOutput(NamedTuple):
    """What the chunk encoder makes of finished chunks."""

    landmarks: Tensor  # [B, F, E]
    keys: Tensor  # [B, F, S, G, D]
    values: Tensor  # [B, F, S, G, D]


class ChunkEncoder(nn.Module):
    """Turn the lower decoder's states of a chunk into its landmark, keys and values."""

    def __init__(self, config: "DRTConfig") -> None:
        super().__init__()
        self.config = config
        key_size = config.num_key_value_heads * config.head_dim
        self.input_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_encoder_layers))
        self.output_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.landmark_pool = LandmarkPool(config) if config.landmark_pooling else None
        taps = config.key_convolution_size
        self.tail_length = max(config.landmark_overlap, int(taps > 1))
        self.key_convolution = SlotConvolution(taps, config.hidden_size) if taps > 1 else None
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=False)

    def forward(
        self,
        grid: Tensor,
        lengths: Tensor | None,
        documents: Tensor | None,
        tail: ChunkTail,
        *,
        is_even: bool = False,
    ) -> EncoderOutput:
        """Encode chunks.

        Args:
            grid: The lower decoder's output in chunks, [B, F, S, E].
            lengths: Tokens of each chunk, [B, F]; slots between them and the landmark are not read.
                None: every chunk is full.
            documents: Document of each chunk, [B, F]; None: one document.
            tail: The end of the chunk before the first.
            is_even: Whether the host knows that all chunks are full and of their rows' first
                document.
        """
        B, num_chunks, S, _ = grid.shape
        if not num_chunks and self.training and not tail.remembers:
            # every weight takes part, or several processes would wait for its gradient for ever
            one = self(F.pad(grid, (0, 0, 0, 0, 0, 1)), None, None, tail)
            return EncoderOutput(*(x[:, :0] for x in one))
        heads = (self.config.num_key_value_heads, self.config.head_dim)
        slots = torch.arange(S, device=grid.device)
        used = mask = None
        if is_even:
            # still a mask: without one attention would round otherwise than beside a short chunk
            mask = torch.ones(B * num_chunks, 1, 1, S, dtype=torch.bool, device=grid.device)
            lengths = None
        elif lengths is not None:
            used = (slots < lengths.unsqueeze(-1)) | (slots == S - 1)  # [B, F, S]
            mask = used.flatten(0, 1)[:, None, None]  # every slot reads the used ones
        rotation = rotary_angles(
            slots.unsqueeze(0), self.config.head_dim, self.config.rope_theta, grid.dtype
        )
        # no view: a layer compiled for one of changing shape would fit no other input
        hidden = self.input_norm(grid.flatten(0, 1))  # [B · F, S, E]
        # most decoded tokens finish no chunk, and some attention kernels refuse an empty batch
        for layer in self.layers if num_chunks else ():
            hidden = layer(hidden, rotation, mask)
        hidden = self.output_norm(hidden.unflatten(0, (B, num_chunks)))
        landmarks, matched, previous = hidden[:, :, -1], hidden, None
        if self.tail_length:
            ends = _ends(hidden, lengths, self.tail_length)
            previous = tail.extend(ends, documents, is_even=is_even)
        if self.landmark_pool is not None:
            landmarks = self.landmark_pool(hidden, used, previous)
        if self.key_convolution is not None:
            assert previous is not None
            matched = self.key_convolution(hidden, previous.states[:, :, -1])
        keys, values = (
            project(x.flatten(0, 1), part)[0].unflatten(0, (B, num_chunks)).unflatten(-1, heads)
            for part, x in ((self.k_proj, matched), (self.v_proj, hidden))
        )
        return EncoderOutput(landmarks, keys, values)


def _ends(hidden: Tensor, lengths: Tensor | None, num_tokens: int) -> ChunkEnds:
    """Take the last `num_tokens` tokens of each chunk, [B, F, S, E]; zeros where it has fewer."""
    S = hidden.shape[2]
    if lengths is None:
        lengths = torch.full(hidden.shape[:2], num_tokens, device=hidden.device)
        return ChunkEnds(hidden[:, :, S - 1 - num_tokens : S - 1], lengths)
    place = lengths.unsqueeze(-1) - num_tokens + torch.arange(num_tokens, device=hidden.device)
    index = place.clamp_min(0).unsqueeze(-1).expand(-1, -1, -1, hidden.shape[-1])
    states = torch.where((place >= 0).unsqueeze(-1), hidden.gather(2, index), 0)
    return ChunkEnds(states, lengths.clamp_max(num_tokens))


class LandmarkPool(nn.Module):
    """A landmark gathered from its chunk's slots by attention with one query for all chunks.

    It begins as their mean, which speaks for every token of the chunk from the first step (a
    landmark's own slot begins as an echo of the last few), and learns what is worth finding. The
    last tokens of the chunk before are gathered too, if `landmark_overlap` says so: what is said
    across the border of two chunks is then found in both.
    """

    def __init__(self, config: "DRTConfig") -> None:
        super().__init__()
        self.overlap = config.landmark_overlap
        self.score = nn.Linear(config.hidden_size, config.num_attention_heads, bias=False)
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, hidden: Tensor, used: Tensor | None, previous: ChunkEnds | None) -> Tensor:
        """Return landmarks [B, F, E].

        Args:
            hidden: Slots, [B, F, S, E].
            used: Which of them are in use, bool [B, F, S]; None: all.
            previous: The end of the chunk before each chunk.
        """
        scores = self._scores(hidden)  # [B, F, S, H]
        if used is not None:
            scores = scores.masked_fill(~used.unsqueeze(-1), -torch.inf)
        if self.overlap:
            assert previous is not None
            tail = previous.states[:, :, -self.overlap :]
            place = torch.arange(-self.overlap, 0, device=hidden.device)
            is_token = place >= -previous.lengths.unsqueeze(-1)  # [B, F, overlap]
            tail_scores = self._scores(tail).masked_fill(~is_token.unsqueeze(-1), -torch.inf)
            hidden, scores = torch.cat([tail, hidden], dim=2), torch.cat([tail_scores, scores], 2)
        weights = scores.softmax(2).to(hidden.dtype)
        heads = hidden.unflatten(-1, (weights.shape[-1], -1))  # [B, F, S, H, E / H]
        return self.norm(torch.einsum("bfsh,bfshd->bfhd", weights, heads).flatten(-2))

    def _scores(self, slots: Tensor) -> Tensor:
        # three dimensions at most: layers of 8 bits take no more
        (scores,) = project(slots.flatten(0, 1), self.score)
        scores = scores.unflatten(0, slots.shape[:2])
        return scores.to(torch.promote_types(scores.dtype, torch.float32))


class EncoderLayer(nn.Module):
    """Pre-norm layer of bidirectional attention and feed-forward block."""

    def __init__(self, config: "DRTConfig") -> None:
        super().__init__()
        size = config.num_attention_heads * config.head_dim
        self.head_dim = config.head_dim
        self.attention_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.q_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.o_proj = nn.Linear(size, config.hidden_size, bias=False)
        self.mlp_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: Tensor, rotation: Rotation, mask: Tensor | None) -> Tensor:
        """Mix the slots of each chunk, [B · F, S, E] → [B · F, S, E]."""
        normed = self.attention_norm(hidden)
        q, k, v = (
            x.unflatten(-1, (-1, self.head_dim))
            for x in project(normed, self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, k, rotation)
        if multiplies_slowly(q):
            q, k, v = q.float(), k.float(), v.float()
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask
        )  # [B · F, H, S, D]
        (mixed,) = project(out.transpose(1, 2).flatten(-2).to(hidden.dtype), self.o_proj)
        hidden, normed = add_and_norm(hidden, mixed, self.mlp_norm)
        return hidden + self.mlp(normed)
