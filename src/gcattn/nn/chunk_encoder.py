"""Chunk encoder: reads each finished chunk in both directions (paper, section 3.1).

Its output at the landmark slot is the chunk's landmark, what the retriever scores; linear maps of
its outputs are the keys and values that every upper layer reads.

Shapes: B batch, F finished chunks, S slots per chunk, H heads, G key/value heads, D head dim,
E hidden size.
"""

from typing import TYPE_CHECKING, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcattn.nn.convolution import SlotConvolution
from gcattn.nn.mlp import SwiGLU
from gcattn.nn.rms_norm import RMSNorm
from gcattn.nn.rotary import Rotation, rotary_angles, rotate

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


class LastToken(NamedTuple):
    """The last token of a row's last finished chunk, which stands in front of the next chunk."""

    state: Tensor  # [B, E], what the encoder made of it
    document: Tensor  # [B], the chunk's document; -1 where the row has finished no chunk

    @classmethod
    def none(cls, last: Tensor) -> Self:
        """Return that of rows which have finished no chunk; `last` is [B, F, E]."""
        document = torch.full(last.shape[:1], -1, dtype=torch.long, device=last.device)
        return cls(last.new_zeros(last.shape[0], last.shape[2]), document)

    def after(self, last: Tensor, documents: Tensor, num_finished: Tensor) -> Self:
        """Go on by the chunks that a call finished: [B, F, E], [B, F] and their number, [B]."""
        place = num_finished.unsqueeze(-1)
        document = torch.cat([self.document.unsqueeze(1), documents], dim=1).gather(1, place)
        state = torch.cat([self.state.unsqueeze(1), last], dim=1)
        state = state.gather(1, place.unsqueeze(-1).expand(-1, -1, state.shape[-1]))
        return type(self)(state.squeeze(1).detach(), document.squeeze(1))


class EncoderOutput(NamedTuple):
    """What the chunk encoder makes of finished chunks."""

    landmarks: Tensor  # [B, F, E]
    keys: Tensor  # [B, F, S, G, D]
    values: Tensor  # [B, F, S, G, D]
    last_tokens: Tensor | None  # [B, F, E], if keys are made of them; see `LastToken`


class ChunkEncoder(nn.Module):
    """Turn the lower decoder's states of a chunk into its landmark, keys and values."""

    def __init__(self, config: "DRTConfig") -> None:
        super().__init__()
        self.config = config
        key_size = config.num_key_value_heads * config.head_dim
        self.input_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_encoder_layers))
        self.output_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.landmark_pool = LandmarkPool(config.hidden_size) if config.landmark_pooling else None
        taps = config.key_convolution_size
        self.key_convolution = SlotConvolution(taps, config.hidden_size) if taps > 1 else None
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=False)

    def forward(
        self,
        grid: Tensor,
        lengths: Tensor | None,
        documents: Tensor | None = None,
        before: LastToken | None = None,
    ) -> EncoderOutput:
        """Encode chunks.

        Args:
            grid: The lower decoder's output in chunks, [B, F, S, E].
            lengths: Tokens of each chunk, [B, F]; slots between them and the landmark are not read.
                None: every chunk is full.
            documents: Document of each chunk, [B, F]; None: one document.
            before: The last token of the calls before this one.
        """
        B, num_chunks, S, _ = grid.shape
        slots = torch.arange(S, device=grid.device)
        mask = None
        is_token = slots < (S - 1 if lengths is None else lengths.unsqueeze(-1))  # [(B, F,) S]
        if lengths is not None:
            used = is_token | (slots == S - 1)
            mask = used.flatten(0, 1)[:, None, None]  # every slot reads the used ones
        rotation = rotary_angles(
            slots.unsqueeze(0), self.config.head_dim, self.config.rope_theta, grid.dtype
        )
        hidden = self.input_norm(grid).flatten(0, 1)  # [B · F, S, E]
        # most decoded tokens finish no chunk, and some attention kernels refuse an empty batch
        for layer in self.layers if num_chunks else ():
            hidden = layer(hidden, rotation, mask)
        hidden = hidden.unflatten(0, (B, num_chunks))
        landmarks = hidden[:, :, -1]
        if self.landmark_pool is not None:
            landmarks = self.landmark_pool(hidden, is_token)
        hidden, landmarks = self.output_norm(hidden), self.output_norm(landmarks)
        matched, last = hidden, None
        if self.key_convolution is not None:
            last = _last_tokens(hidden, lengths)
            matched = self.key_convolution(hidden, _in_front(last, documents, before))
        keys, values = (
            x.unflatten(-1, (-1, self.config.head_dim))
            for x in (self.k_proj(matched), self.v_proj(hidden))
        )
        return EncoderOutput(landmarks, keys, values, last)


def _last_tokens(hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """Take the last token of each chunk, [B, F, S, E] → [B, F, E]."""
    if lengths is None:
        return hidden[:, :, -2]
    place = (lengths - 1).clamp_min(0)[..., None, None].expand(-1, -1, 1, hidden.shape[-1])
    return hidden.gather(2, place).squeeze(2)


def _in_front(last: Tensor, documents: Tensor | None, before: LastToken | None) -> Tensor:
    """Return the last token of the chunk before each chunk of its document, [B, F, E], or zeros."""
    if before is None:
        before = LastToken.none(last)
    state = torch.cat([before.state.unsqueeze(1), last], dim=1)[:, :-1]
    if documents is None:
        return state
    document = torch.cat([before.document.unsqueeze(1), documents], dim=1)[:, :-1]
    return torch.where((documents == document).unsqueeze(-1), state, 0)


class LandmarkPool(nn.Module):
    """A landmark made of its own slot and of the mean of the chunk's tokens, channel by channel.

    The mean speaks for all tokens of the chunk from the first step; a landmark's own slot begins as
    an echo of the last few.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.empty(hidden_size))
        self.mean = nn.Parameter(torch.empty(hidden_size))

    def forward(self, hidden: Tensor, is_token: Tensor) -> Tensor:
        """Return landmarks [B, F, E] of slots [B, F, S, E], `is_token` [B, F, S] or [S]."""
        is_token = is_token.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * is_token).sum(2) / is_token.sum(-2).clamp_min(1)
        return hidden[:, :, -1] * self.own.to(mean.dtype) + mean * self.mean.to(mean.dtype)


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
            project(normed).unflatten(-1, (-1, self.head_dim))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = F.scaled_dot_product_attention(
            rotate(q, rotation).transpose(1, 2),
            rotate(k, rotation).transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=mask,
        )  # [B · F, H, S, D]
        hidden = hidden + self.o_proj(out.transpose(1, 2).flatten(-2))
        return hidden + self.mlp(self.mlp_norm(hidden))
