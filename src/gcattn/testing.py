"""Small inputs and models for tests, of odd sizes on purpose.

Shapes: B batch, T tokens, C chunks, M query slots, H and G heads, D head dim, N pool chunks, S
slots, K retrieved chunks.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gcattn.models import DRTConfig, DRTForCausalLM


@dataclass(frozen=True)
class CrossAttentionInputs:
    """Arguments of `grouped_cross_attention`."""

    q: Tensor
    k: Tensor
    v: Tensor
    chunk_indices: Tensor
    chunk_weights: Tensor
    chunk_lengths: Tensor

    def to(self, dtype: torch.dtype) -> "CrossAttentionInputs":
        """Return the same numbers in another floating-point dtype."""
        names = ("q", "k", "v", "chunk_weights")
        return replace(self, **{n: getattr(self, n).to(dtype) for n in names})


def cross_attention_inputs(
    *,
    B: int = 2,
    C: int = 3,
    M: int = 5,
    H: int = 4,
    G: int = 2,
    D: int = 8,
    N: int = 6,
    S: int = 5,
    K: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> CrossAttentionInputs:
    """Draw inputs with empty slots, repeated chunks and chunks of every length from 0 to S."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    return CrossAttentionInputs(
        q=normal(B, C, M, H, D),
        k=normal(B, N, S, G, D),
        v=normal(B, N, S, G, D),
        chunk_indices=integers(-1, N, B, C, K),
        chunk_weights=normal(B, C, K).softmax(-1),
        chunk_lengths=integers(0, S + 1, B, N),
    ).to(dtype)


def random_config(seed: int, **overrides: Any) -> DRTConfig:
    """Draw a small configuration: 5–64 slots, R 1–3, K 1–9, any head ratio, odd windows.

    Seeds 2n and 2n + 1 differ in every option that has two values, so the two cover all of them.
    In every second pair, one whose heads can be halved mixes chunks both ways.
    """
    draw, pair = random.Random(seed), random.Random(seed // 2)

    def either(first: Any, second: Any) -> Any:
        return (first, second)[pair.choice([0, 1]) ^ seed % 2]

    kv_heads = either(1, 2)
    groups = draw.choice([1, 2, 3])
    pooling = either(True, False)
    fields: dict[str, Any] = {
        "vocab_size": 61,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_attention_heads": kv_heads * draw.choice([1, 2, 3]),
        "num_key_value_heads": kv_heads,
        "head_dim": draw.choice([4, 6, 8]),
        "num_lower_layers": either(1, 2),
        "num_upper_layers": groups * either(1, 2),
        "num_encoder_layers": draw.choice([0, 1, 2]),
        "num_retrieval_groups": groups,
        "chunk_size": draw.choice([5, 6, 7, 9, 16, 33, 64]),
        "retrieval_top_k": draw.randint(1, 9),
        "window_size": draw.choice([1, 4, 7, 13, 32]),
        "retrieval_serves": either("next_chunk", "from_landmark"),
        "softmax_off_by_one": either(True, False),
        "sink_logit": draw.choice([0.0, 1.5]),
        "residual_wiring": either("bypass", "ordinary"),
        "cross_attention_init": either("aligned", "plain"),
        "embedding_convolution_size": draw.choice([1, 2, 4]),
        "landmark_pooling": pooling,
        "landmark_overlap": draw.choice([0, 1, 3]) if pooling else 0,
        "key_convolution_size": draw.choice([1, 2, 3]),
        "cross_attention_interval": either(1, 2),
        "retrieval_temperature": either(0.5, 1.0),
        "chunk_mixing": either("separate", "joint"),
        "initializer_range": 0.2,  # large enough for every part to matter in the outputs
    }
    if seed // 2 % 2 and (fields | overrides)["num_key_value_heads"] % 2 == 0:
        fields["chunk_mixing"] = "both"
    return DRTConfig(**(fields | overrides))


def random_model(config: DRTConfig, seed: int = 0) -> DRTForCausalLM:
    """Build a model in float64 and evaluation mode with weights drawn from `seed`."""
    torch.manual_seed(seed)
    return DRTForCausalLM(config).double().eval()


def random_tokens(config: DRTConfig, B: int, T: int, seed: int = 0) -> Tensor:
    """Draw token ids [B, T]; the last id is left out, tests pad with it."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, config.vocab_size - 1, (B, T), generator=generator)


def never_pads(model: DRTForCausalLM) -> DRTForCausalLM:
    """Let a model hardly ever prefer the last id, with which tests pad."""
    with torch.no_grad():
        model.lm_head.weight[-1] = 0
    return model


def assert_within_budget(
    fast: Tensor | Sequence[Tensor],
    plain: Tensor | Sequence[Tensor],
    truth: Tensor | Sequence[Tensor],
    *,
    factor: float = 2.0,
) -> None:
    """Fail if `fast` is further from the truth than `factor` times what `plain` is.

    `plain` is the reference in the dtype of `fast`, `truth` the reference in float64 on the same
    numbers, so the budget is what the dtype itself costs: no tolerance has to be guessed. One
    rounding of the largest value comes on top, for the case that the reference is exact by chance.

    Args:
        fast: Result under test, or several (output and gradients), each of any shape.
        plain: The reference's results in the same dtype and order.
        truth: The reference's results in float64, same order.
        factor: Share of the reference's error that is allowed, largest and root mean square.
    """
    if isinstance(fast, Tensor):
        assert isinstance(plain, Tensor) and isinstance(truth, Tensor)
        fast, plain, truth = [fast], [plain], [truth]
    for number, (found, usual, exact) in enumerate(zip(fast, plain, truth, strict=True)):
        assert found.shape == usual.shape == exact.shape, (
            f"result {number}: shapes {list(found.shape)}, {list(usual.shape)}, {list(exact.shape)}"
        )
        assert found.dtype == usual.dtype, f"result {number}: {found.dtype} is not {usual.dtype}"
        if exact.numel() == 0:
            continue
        exact = exact.double().cpu()
        off, allowed = found.double().cpu() - exact, usual.double().cpu() - exact
        rounding = torch.finfo(found.dtype).eps
        for name, norm in (("largest", _largest), ("root mean square", _root_mean_square)):
            error, budget = norm(off), factor * norm(allowed) + rounding * norm(exact)
            # written so that NaN fails
            assert error <= budget, (
                f"result {number}: {name} error {error:.3g} is above {budget:.3g}, "
                f"{factor} times the reference's own plus one rounding"
            )


def _largest(x: Tensor) -> float:
    return x.abs().max().item()


def _root_mean_square(x: Tensor) -> float:
    return x.square().mean().sqrt().item()
