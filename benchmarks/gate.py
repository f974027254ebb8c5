"""The correctness gate: no number of an operator that is wrong.

Every contestant that computes Grouped Cross-Attention or a sliding window is held against float64,
output and gradients, on fresh random numbers, before anything is timed. Memory that nobody wrote
holds NaN meanwhile, and so does the newest chunk, which no column may read.

Shapes: B batch, L = C · S columns, C chunks, S slots per chunk, H query heads, G key/value heads,
D head dim, K retrieved chunks, W window.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.contestant import Contestant, PreparedCall
from benchmarks.inputs import OperatorInputs, random_inputs
from benchmarks.shapes import OperatorShape
from gcattn.ops import grouped_cross_attention

# relative Frobenius error of a tensor that is still right
LIMITS = {"bfloat16": 1e-2, "float16": 2e-3, "float32": 1e-5}
# enough for empty slots, partly and wholly filled ones
GATE_CHUNKS = 24
GATE_BATCH = 2


class RedGateError(ValueError):
    """An operator is wrong: it has no time worth knowing."""


def check_contestant(
    contestant: Contestant, shape: OperatorShape, device: torch.device, seed: int
) -> dict[str, float]:
    """Compare a contestant with float64 on a small shape of the same heads, K, S, W and dtype.

    Returns:
        Relative Frobenius error of the output and of each gradient, by name.

    Raises:
        RedGateError: A tensor is further off than its dtype explains.
    """
    small = gate_shape(shape)
    inputs = random_inputs(small, device, seed)
    if contestant.computes == "grouped_cross_attention":
        inputs.k[:, -1], inputs.v[:, -1] = torch.nan, torch.nan
    truth = _truth(contestant, inputs)
    with _uninitialized_memory_is_nan(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _output_and_gradients(contestant.prepare(inputs), inputs.dout)
    errors = {name: _relative_error(found[name], exact) for name, exact in truth.items()}
    limit = LIMITS[shape.dtype]
    for name, error in errors.items():
        # written so that NaN is red
        if not error < limit:
            raise RedGateError(
                f"{contestant.name} is wrong: the {name} is off by {error:.2g} "
                f"(relative Frobenius error against float64, {small.label()}, {shape.dtype}), the "
                f"limit is {limit:g}; nothing is measured."
            )
    return errors


def gate_shape(shape: OperatorShape) -> OperatorShape:
    """Return the small shape that stands for `shape`."""
    # so many chunks that the window ends inside the row
    chunks = max(GATE_CHUNKS, 2 * shape.window // shape.chunk_size)
    chunks = min(shape.num_chunks, chunks)
    return replace(
        shape, batch=min(shape.batch, GATE_BATCH), length=max(chunks, 3) * shape.chunk_size
    )


def _truth(contestant: Contestant, inputs: OperatorInputs) -> dict[str, Tensor]:
    leaves = {
        name: getattr(inputs, name).detach().double().requires_grad_() for name in ("q", "k", "v")
    }
    if contestant.computes == "grouped_cross_attention":
        weights = inputs.chunk_weights.detach().double().requires_grad_()
        leaves["chunk_weights"] = weights
        q, k, v, _ = leaves.values()
        out = grouped_cross_attention(
            q, k, v, inputs.chunk_indices, weights, mixing=contestant.mixing, impl="reference"
        )
    else:
        q, k, v = leaves.values()
        out = _window_by_mask(q, k, v, inputs.shape.window)
    call = PreparedCall(lambda: out, leaves, lambda x: x.flatten(1, 2))
    return _output_and_gradients(call, inputs.dout.double())


def _window_by_mask(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Attend through an [L, L] mask: what a sliding window is, without any cleverness."""
    ratio = q.shape[3] // k.shape[3]
    queries = q.flatten(1, 2)  # [B, L, H, D]
    keys, values = (x.flatten(1, 2).repeat_interleave(ratio, dim=2) for x in (k, v))
    logits = torch.einsum("blhd,bmhd->bhlm", queries, keys) * q.shape[-1] ** -0.5
    column = torch.arange(logits.shape[-1], device=q.device)
    behind = column[:, None] - column
    visible = (behind >= 0) & (behind < window)
    attention = logits.masked_fill(~visible, -torch.inf).softmax(-1)
    return torch.einsum("bhlm,bmhd->blhd", attention, values).view_as(q)


def _output_and_gradients(call: PreparedCall, dout: Tensor) -> dict[str, Tensor]:
    """Return the output and the gradients by name, by columns."""
    out = call.as_columns(call.run())
    gradients = torch.autograd.grad(out, list(call.leaves.values()), dout.flatten(1, 2).to(out))
    named = {"output": out.detach()}
    for name, gradient in zip(call.leaves, gradients, strict=True):
        is_weight = name == "chunk_weights"
        named[f"gradient of {name}"] = gradient if is_weight else call.as_columns(gradient)
    return named


def _relative_error(found: Tensor, exact: Tensor) -> float:
    if found.shape != exact.shape:
        return float("inf")
    scale = exact.norm().item()
    return (found.double() - exact).norm().item() / (scale if scale > 0 else 1.0)


@contextmanager
def _uninitialized_memory_is_nan() -> Iterator[None]:
    """Let `torch.empty` give NaN: PyTorch does so where it is asked to be deterministic."""
    was_on, only_warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    # a module whose attributes are properties, which types cannot say
    settings: Any = torch.utils.deterministic
    filled = settings.fill_uninitialized_memory
    settings.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=only_warned)
        settings.fill_uninitialized_memory = filled
