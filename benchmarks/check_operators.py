"""Checks of the operators at real sizes: bfloat16 beside the reference, and compiled.

Shapes: B batch, C chunks, M query slots, H query heads, G key/value heads, D head dim, N pool
chunks, S slots, K retrieved chunks, L columns, P columns in front of them, W window.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from gcattn.ops import grouped_cross_attention, sliding_window_attention
from gcattn.ops.implementation import Impl
from gcattn.testing import assert_within_budget

DEVICE = "cuda"
POISON = 64 * 2**20


def _cross_attention(
    *,
    B: int = 1,
    C: int,
    M: int,
    H: int = 12,
    G: int = 12,
    D: int = 64,
    N: int,
    S: int = 64,
    K: int = 8,
    sink: float | None = None,
    ragged: bool = False,
    backward: bool = True,
) -> str:
    """Check both ways to mix; a weight of zero has a gradient too."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE)

    q, k, v = (normal(*x, D).bfloat16() for x in ((B, C, M, H), (B, N, S, G), (B, N, S, G)))
    dout = normal(B, C, M, H, D).bfloat16()
    indices = torch.randint(-1, N, (B, C, K), generator=generator).to(DEVICE)
    weights = normal(B, C, K).softmax(-1)
    weights[..., 0] = 0
    lengths = torch.randint(1, S + 1, (B, N), generator=generator).to(DEVICE) if ragged else None

    def run(dtype: torch.dtype, impl: Impl, mixing: str) -> list[Tensor]:
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        mix = weights.to(torch.promote_types(dtype, torch.float32)).requires_grad_()
        with torch.set_grad_enabled(backward):
            out = grouped_cross_attention(
                leaves[0],
                leaves[1],
                leaves[2],
                indices,
                mix,
                chunk_lengths=lengths,
                sink_logit=sink,
                mixing=mixing,  # type: ignore[arg-type]
                impl=impl,
            )
        if not backward:
            return [out]
        return [out.detach(), *torch.autograd.grad(out, (*leaves, mix), dout.to(dtype))]

    return " / ".join(_compare(partial(run, mixing=mixing)) for mixing in ("separate", "joint"))


def _sliding_window(
    *, B: int, L: int, P: int = 0, W: int, H: int = 12, G: int = 12, D: int = 64, packed: bool
) -> str:
    generator = torch.Generator().manual_seed(0)

    def normal(length: int, heads: int) -> Tensor:
        return torch.randn(B, length, heads, D, generator=generator).to(DEVICE).bfloat16()

    q, k, v, dout = normal(L, H), normal(P + L, G), normal(P + L, G), normal(L, H)
    documents = torch.randint(0, 3, (B, P + L), generator=generator).sort(1).values.to(DEVICE)
    named = {"query_documents": documents[:, P:], "key_documents": documents} if packed else {}

    def run(dtype: torch.dtype, impl: Impl) -> list[Tensor]:
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        out = sliding_window_attention(*leaves, window_size=W, impl=impl, **named)
        return [out.detach(), *torch.autograd.grad(out, leaves, dout.to(dtype))]

    return _compare(run)


def _compare(run: Callable[[torch.dtype, Impl], Sequence[Tensor]]) -> str:
    """Hold the kernels to the error that the reference has in the same dtype, and to their bits."""
    # freed at once: memory that a kernel leaves unwritten is then full of NaN
    torch.full((POISON,), torch.nan, device=DEVICE)
    fast, again = run(torch.bfloat16, "triton"), run(torch.bfloat16, "triton")
    truth, plain = run(torch.float64, "reference"), run(torch.bfloat16, "reference")
    assert_within_budget(fast, plain, truth)
    assert all(map(torch.equal, fast, again)), "two runs give different bits"
    errors = (_relative_error(x, exact) for x, exact in zip(fast, truth, strict=True))
    return "relative errors " + ", ".join(f"{error:.1e}" for error in errors)


def _relative_error(x: Tensor, exact: Tensor) -> float:
    error = (x.double() - exact).square().mean() / exact.square().mean().clamp_min(1e-60)
    return error.sqrt().item()


def _compiled() -> str:
    """Compare gradients of both operators in one compiled graph with those of eager calls."""
    q, k, v = (torch.randn(1, 4, 64, 12, 64, device=DEVICE).bfloat16() for _ in range(3))
    indices = torch.tensor([[[-1, -1], [0, -1], [0, 1], [2, 1]]], device=DEVICE)
    weights = torch.rand(1, 4, 2, device=DEVICE)

    def loss(q: Tensor, k: Tensor, v: Tensor, weights: Tensor) -> Tensor:
        x = grouped_cross_attention(q, k, v, indices, weights, mixing="joint").flatten(1, 2)
        return sliding_window_attention(x, x, x, window_size=64).float().square().sum()

    results = []
    for function in (loss, torch.compile(loss, fullgraph=True)):
        leaves = [x.clone().requires_grad_() for x in (q, k, v, weights)]
        results.append(torch.autograd.grad(function(*leaves), leaves))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=2e-2, atol=2e-2)
    return "the same gradients"


OPERATOR_CHECKS: dict[str, Callable[[], str]] = {
    "cross-attention, a whole row": partial(_cross_attention, C=9, M=64, N=9),
    "cross-attention, ragged chunks and a sink": partial(
        _cross_attention, B=2, C=5, M=40, H=8, G=2, D=80, N=7, S=40, K=3, sink=1.0, ragged=True
    ),
    "cross-attention, one decoded token": partial(_cross_attention, C=1, M=1, N=40, backward=False),
    "sliding window": partial(_sliding_window, B=1, L=1500, W=512, packed=False),
    "sliding window, packed documents": partial(
        _sliding_window, B=2, L=700, P=100, W=300, H=6, G=2, D=80, packed=True
    ),
    "both operators, compiled": _compiled,
}
