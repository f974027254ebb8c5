"""The gate is green for what is right and red for what is slightly, rarely or invisibly wrong."""

from dataclasses import replace

import pytest
import torch

from benchmarks.contestant import Contestant, PreparedCall
from benchmarks.contestants import contestants, ours
from benchmarks.gate import RedGateError, check_contestant, gate_shape
from benchmarks.shapes import OperatorShape

CPU = torch.device("cpu")
SHAPE = OperatorShape(
    length=64,
    heads=4,
    kv_heads=2,
    head_dim=8,
    top_k=3,
    chunk_size=8,
    window=20,
    dtype="float32",
)
OURS = {c.name: c for c in contestants() if not c.is_foreign}
GATED = [name for name in OURS if OURS[name].computes != "full_attention"]


def changed(change, name="gcattn"):
    """Return a contestant whose output is changed by a function of output and leaves."""
    contestant = OURS[name]

    def prepare(inputs):
        call = contestant.prepare(inputs)
        return PreparedCall(lambda: change(call.run(), call.leaves), call.leaves, call.as_columns)

    return replace(contestant, name="changed", prepare=prepare)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", GATED)
def test_gate_is_green_for_every_own_contestant(name, dtype):
    errors = check_contestant(OURS[name], replace(SHAPE, dtype=dtype), CPU, seed=1)
    names = {"output", "gradient of q", "gradient of k", "gradient of v"}
    if OURS[name].computes == "grouped_cross_attention":
        names.add("gradient of chunk_weights")
    assert set(errors) == names
    # rounding shows: the truth is another computation than the contestant's
    assert all(0 < error < 1e-2 for error in errors.values())


@pytest.mark.slow
def test_gate_is_green_for_the_kernels():
    kernels = Contestant("kernels", "grouped_cross_attention", ours("triton"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    errors = check_contestant(kernels, replace(SHAPE, chunk_size=16), device, seed=1)
    assert max(errors.values()) < 1e-6


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gate_is_red_for_an_output_that_is_off_by_two_percent(name, dtype):
    with pytest.raises(RedGateError, match=r"changed is wrong: the output is off by 0\.02"):
        check_contestant(
            changed(lambda out, _: 1.02 * out, name), replace(SHAPE, dtype=dtype), CPU, seed=1
        )


class TooSmallGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, out):
        return out.clone()

    @staticmethod
    def backward(ctx, dout):
        return 0.98 * dout


def test_gate_is_red_for_a_wrong_gradient_behind_a_right_output():
    contestant = changed(lambda out, _: TooSmallGradient.apply(out))
    with pytest.raises(RedGateError, match="the gradient of q is off"):
        check_contestant(contestant, SHAPE, CPU, seed=1)


def test_gate_is_red_for_values_that_nobody_wrote():
    def leave_one_unwritten(out, _):
        # what an allocator gives is often zero by luck; here it is NaN
        patch = torch.empty_like(out)
        mask = torch.ones_like(out, dtype=torch.bool)
        mask[0, 0, 0, 0, 0] = False
        return torch.where(mask, out, patch)

    with pytest.raises(RedGateError, match="off by nan"):
        check_contestant(changed(leave_one_unwritten), SHAPE, CPU, seed=1)


def test_gate_is_red_for_a_look_at_the_newest_chunk():
    def leak(out, leaves):
        return out + 0 * leaves["k"][:, -1].sum()

    with pytest.raises(RedGateError, match="off by nan"):
        check_contestant(changed(leak), SHAPE, CPU, seed=1)


def test_gate_leaves_pytorch_as_it_was():
    settings = torch.utils.deterministic
    before = (torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory)
    check_contestant(OURS["gcattn"], SHAPE, CPU, seed=1)
    after = (torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory)
    assert before == after


def test_gate_shape_keeps_everything_but_batch_and_length():
    shape = OperatorShape(batch=8, length=2**20)
    small = gate_shape(shape)
    assert small.batch == 2 and small.length < 4096
    assert replace(small, batch=8, length=2**20) == shape
    # a window has to end inside the row
    assert small.length > shape.window
