"""Plans: made once for the layouts of the inputs, never used for others."""

import os
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses import FakeTensorMode

from gcattn import grouped_cross_attention, sliding_window_attention
from gcattn.ops.grouped_cross_attention import autograd
from gcattn.ops.launch import Launch, Layout, allocator
from gcattn.testing import cross_attention_inputs

pytest.importorskip("triton", reason="Triton is not installed")
interpreter = pytest.mark.skipif(
    torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") != "1",
    reason="the interpreter lane needs TRITON_INTERPRET=1 and no GPU",
)


def leaves_of(inputs):
    names = ("q", "k", "v", "chunk_weights")
    return [getattr(inputs, name).clone().requires_grad_() for name in names]


def attend(leaves, indices):
    q, k, v, weights = leaves
    return grouped_cross_attention(q, k, v, indices, weights, impl="triton")


@interpreter
def test_the_same_layouts_make_one_plan():
    inputs = cross_attention_inputs(B=1, C=1, M=1, H=2, G=1, N=3, dtype=torch.float32)
    attend(leaves_of(inputs), inputs.chunk_indices)
    before = autograd._forward_plan.cache_info().misses
    attend(leaves_of(inputs), inputs.chunk_indices)
    assert autograd._forward_plan.cache_info().misses == before
    attend(leaves_of(inputs), inputs.chunk_indices.int())
    assert autograd._forward_plan.cache_info().misses == before + 1


@interpreter
def test_inputs_that_no_kernel_can_read_are_copied():
    inputs = cross_attention_inputs(B=1, C=2, M=2, H=2, G=1, N=3, dtype=torch.float32)
    expected_leaves = leaves_of(inputs)
    expected = attend(expected_leaves, inputs.chunk_indices)
    every_second = [torch.stack([x, -x], -1)[..., 0].detach() for x in leaves_of(inputs)]
    indices = torch.stack([inputs.chunk_indices, inputs.chunk_indices - 1], -1)[..., 0]
    assert not indices.is_contiguous()
    for _ in range(2):  # the plan that copies is used again
        leaves = [x.requires_grad_() for x in every_second]
        out = attend(leaves, indices)
        assert torch.equal(out, expected)
        found = torch.autograd.grad(out.sum(), leaves)
    wanted = torch.autograd.grad(expected.sum(), expected_leaves)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@interpreter
def test_hooks_may_hand_back_saved_tensors_in_another_layout():
    inputs = cross_attention_inputs(B=1, C=2, M=2, H=2, G=1, N=3, dtype=torch.float32)
    leaves = leaves_of(inputs)
    wanted = torch.autograd.grad(attend(leaves, inputs.chunk_indices).sum(), leaves)

    def spread(x):
        return torch.stack([x, x], 0).movedim(0, -1)[..., 0]

    with torch.autograd.graph.saved_tensors_hooks(spread, lambda x: x):
        out = attend(leaves, inputs.chunk_indices)
    found = torch.autograd.grad(out.sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@interpreter
def test_a_second_derivative_is_refused():
    inputs = cross_attention_inputs(B=1, C=1, M=1, H=2, G=1, N=3, dtype=torch.float32)
    leaves = leaves_of(inputs)
    out = attend(leaves, inputs.chunk_indices)
    with pytest.raises(RuntimeError, match='have no second derivative; pass impl="reference"'):
        torch.autograd.grad(out.sum(), leaves[0], create_graph=True)


@interpreter
@pytest.mark.parametrize("mixing", ["separate", "joint"])
def test_forward_and_backward_are_four_launches_and_eight_allocations(monkeypatch, mixing):
    # enough programs that the chunks of a query need not be spread over more
    inputs = cross_attention_inputs(B=1, C=64, M=1, H=4, G=4, N=3, dtype=torch.float32)
    q, k, v, weights = leaves_of(inputs)
    calls = []

    def counted(make):
        return lambda *args, **options: calls.append("allocation") or make(*args, **options)

    monkeypatch.setattr(torch.Tensor, "new_empty", counted(torch.Tensor.new_empty))
    monkeypatch.setattr(torch, "empty_like", counted(torch.empty_like))
    monkeypatch.setattr(Launch, "__call__", lambda *_: calls.append("launch"))
    out = grouped_cross_attention(
        q, k, v, inputs.chunk_indices, weights, mixing=mixing, impl="triton"
    )
    torch.autograd.grad(out, (q, k, v, weights), torch.ones_like(out))
    assert (calls.count("launch"), calls.count("allocation")) == (4, 8)


def test_a_later_launch_passes_addresses_and_asks_triton_only_where_it_must(monkeypatch):
    from triton import knobs
    from triton.runtime import driver

    ran, launched = [], []
    binary = SimpleNamespace(function=1, packed_metadata=2, run=lambda *args: ran.append(args))

    class Kernel:
        def __getitem__(self, grid):
            return lambda *args, **options: launched.append((grid, args, options)) or binary

    current = [7]
    device = SimpleNamespace(
        get_current_device=lambda: current[0], get_current_stream=lambda i: i * 10
    )
    monkeypatch.setattr(driver, "_active", device)

    @contextmanager
    def enter(number):
        current[0], before = number, current[0]
        yield
        current[0] = before

    elsewhere, here = torch.empty(3, device="meta"), torch.empty(3)
    launch = Launch(Kernel(), (5,), (1, 2), 0.5, num_warps=4)
    for _ in range(2):
        launch(elsewhere, None, here)
    assert launched == [((5, 1, 1), (elsewhere, None, here, (1, 2), 0.5), {"num_warps": 4})]
    # what lies on the host is passed as it is: the driver is asked whether a GPU can read it
    assert ran == [(5, 1, 1, 70, 1, 2, None, None, None, 0, None, here, (1, 2), 0.5)]

    def hook(*_):
        pass

    knobs.runtime.launch_enter_hook.add(hook)
    try:
        launch(elsewhere, None, here)
    finally:
        knobs.runtime.launch_enter_hook.remove(hook)
    assert len(launched) == 2 and len(ran) == 1
    current[0] = 8  # another device than that of the kernel
    monkeypatch.setattr(torch.cuda, "device", enter)
    launch(elsewhere, None, here)
    assert len(launched) == 2 and ran == 2 * ran[:1] and current == [8]


@interpreter
@pytest.mark.slow
def test_operators_are_registered_as_torch_expects():
    x = cross_attention_inputs(B=1, C=2, M=2, H=2, G=1, N=3, dtype=torch.float32)
    # what is saved of an empty slot is never written, so it can't be compared
    filled = x.chunk_indices.clamp_min(0)
    inputs = x.q, x.k, x.v, filled, x.chunk_weights, x.chunk_lengths
    for is_joint in (False, True):
        torch.library.opcheck(autograd.forward_operator, (*inputs, 0.0, 0.5, is_joint, True))
        out, *rest = autograd.forward_operator(*inputs, 0.0, 0.5, is_joint, True)
        saved = (out if is_joint else None, *rest)
        torch.library.opcheck(autograd.backward_operator, (x.q, *inputs, *saved, 0.5))


@interpreter
def test_fake_tensors_get_shapes_without_a_launch():
    with FakeTensorMode():
        q = torch.empty(2, 3, 5, 4, 8)
        pool = torch.empty(2, 6, 5, 2, 8)
        indices = torch.zeros(2, 3, 3, dtype=torch.long)
        weights = torch.empty(2, 3, 3)
        assert (
            grouped_cross_attention(q, pool, pool, indices, weights, impl="triton").shape == q.shape
        )
        x = torch.empty(1, 7, 2, 8)
        assert sliding_window_attention(x, x, x, window_size=3, impl="triton").shape == x.shape


@pytest.mark.parametrize(
    ("shape", "strides", "expected"),
    [
        ((2, 3), (3, 1), True),
        ((2, 3), (1, 2), False),
        ((2, 1), (1, 7), True),
        ((1, 4), (9, 1), True),
        ((2, 3), (0, 1), False),
        ((4, 1, 2), (2, 0, 1), True),
    ],
)
def test_contiguity_is_what_torch_calls_so(shape, strides, expected):
    x = torch.empty_strided(shape, strides)
    layout = Layout(x.shape, x.stride(), x.dtype, x.device, True)
    assert layout.is_contiguous() == x.is_contiguous() == expected


@pytest.mark.parametrize("strides", [(12, 4, 1), (24, 8, 2), (4, 8, 1), (0, 4, 1)], ids=str)
def test_what_is_allocated_lies_in_one_piece(strides):
    x = torch.empty_strided((2, 3, 4), strides, dtype=torch.float16)
    layout = Layout(x.shape, x.stride(), x.dtype, x.device, True)
    for device in (x.device, torch.device("meta")):
        made = allocator(layout, device)(x)
        assert made.is_contiguous() and made.device == device
        assert (made.shape, made.dtype) == (x.shape, x.dtype)
