"""The Triton kernels against the reference, within the error budget of the dtype.

Without a GPU they run in Triton's interpreter, in float32 and float16 and at small sizes; with the
mark `gpu` on the device, in bfloat16 and at real sizes too.
"""

import os
from dataclasses import replace
from itertools import product

import pytest
import torch

from gcattn import grouped_cross_attention
from gcattn.ops.grouped_cross_attention import api, autograd
from gcattn.testing import assert_within_budget, cross_attention_inputs

pytest.importorskip("triton", reason="Triton is not installed")
ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
pytestmark = pytest.mark.skipif(
    not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs a GPU or TRITON_INTERPRET=1",
)

LARGER = {"B": 2, "C": 3, "N": 6, "seed": 0}
# the interpreter is slow: with each case the variants that the quick run takes
JOINT, SEPARATE = (torch.float32, 1.5, "joint"), (torch.float16, None, "separate")
SMALL = [
    ({}, [JOINT, SEPARATE]),
    ({"H": 4, "G": 1}, [SEPARATE]),
    ({"H": 6, "G": 2, "D": 20, "S": 11, "M": 7, "K": 5}, [SEPARATE]),
    ({"B": 2, "H": 3, "G": 3, "D": 3}, [JOINT]),
    ({"K": 1, "S": 1, "M": 1, "C": 1, "seed": 0}, [JOINT, SEPARATE]),
    ({"K": 9, "N": 2}, [JOINT]),
    ({"B": 1, "C": 2, "H": 2, "G": 1, "M": 40, "S": 16, "D": 16}, [SEPARATE]),
    (LARGER, []),
]
REAL = [
    {"B": 1, "C": 9, "M": 64, "H": 4, "G": 4, "D": 64, "N": 9, "S": 64, "K": 8},
    {"B": 2, "C": 5, "M": 64, "H": 8, "G": 2, "D": 64, "N": 7, "S": 64, "K": 3},
    {"B": 1, "C": 5, "M": 64, "H": 2, "G": 2, "D": 128, "N": 5, "S": 64, "K": 4},
    {"B": 1, "C": 3, "M": 70, "H": 2, "G": 1, "D": 80, "N": 3, "S": 100, "K": 2},
    {"B": 1, "C": 3, "M": 64, "H": 2, "G": 2, "D": 256, "N": 3, "S": 64, "K": 2},
    {"B": 1, "C": 3, "M": 128, "H": 2, "G": 2, "D": 64, "N": 3, "S": 128, "K": 2},
    {"B": 1, "C": 3, "M": 128, "H": 2, "G": 2, "D": 128, "N": 3, "S": 128, "K": 2},
    {"B": 1, "C": 3, "M": 16, "H": 2, "G": 2, "D": 16, "N": 300, "S": 16, "K": 256},
    {"B": 1, "C": 1, "M": 1, "H": 8, "G": 8, "D": 64, "N": 40, "S": 64, "K": 8},
]
CASES = SMALL + ([(case, []) for case in REAL] if ON_GPU else [])
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if ON_GPU else [])
# every case with every dtype, sink and mixing
VARIANTS = list(product(DTYPES, (None, 0.0, 1.5), ("separate", "joint")))
MATCHES = [
    pytest.param(case, variant, marks=[] if variant in quick or ON_GPU else pytest.mark.slow)
    for case, quick in CASES
    for variant in VARIANTS
]
MIXINGS = pytest.mark.parametrize(
    "mixing", [pytest.param("separate", marks=[] if ON_GPU else pytest.mark.slow), "joint"]
)
NAMES = ("q", "k", "v", "chunk_weights")


def draw(**sizes):
    """Draw inputs on the device; few programs, for the interpreter takes them one by one."""
    few = {} if ON_GPU else {"B": 1, "C": 2, "N": 3, "seed": 3}  # empty and repeated slots
    inputs = cross_attention_inputs(**few | sizes)
    names = (*NAMES, "chunk_indices", "chunk_lengths")
    return replace(inputs, **{name: getattr(inputs, name).to(DEVICE) for name in names})


def run(inputs, impl, **kwargs):
    """Output and gradients of q, k, v and chunk_weights for a fixed random output gradient."""
    leaves = [getattr(inputs, name).clone().requires_grad_() for name in NAMES]
    kwargs = {"chunk_lengths": inputs.chunk_lengths} | kwargs
    out = grouped_cross_attention(*leaves[:3], inputs.chunk_indices, leaves[3], impl=impl, **kwargs)
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    out.backward(gradient.to(out))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def check(inputs, dtype, **kwargs):
    rounded = inputs.to(dtype)
    truth = run(rounded.to(torch.float64), "reference", **kwargs)
    plain, fast = (run(rounded, impl, **kwargs) for impl in ("reference", "triton"))
    # exp2 and log2 of the hardware are approximate: a few units in the last place of float32
    assert_within_budget(fast, plain, truth, factor=8 if dtype == torch.float32 else 2)
    return fast


@pytest.mark.parametrize(("case", "variant"), MATCHES, ids=str)
def test_kernels_match_the_reference(case, variant):
    larger = {} if variant in (JOINT, SEPARATE) else LARGER
    dtype, sink_logit, mixing = variant
    check(draw(**larger | case), dtype, sink_logit=sink_logit, mixing=mixing)


def forget_plans():
    for plans in (api._prepare, autograd._forward_plan, autograd._backward_plan):
        plans.cache_clear()


@MIXINGS
@pytest.mark.slow
def test_chunks_spread_over_programs_add_up_like_those_of_one(monkeypatch, mixing):
    from gcattn.ops.grouped_cross_attention import triton_forward

    inputs = draw(**LARGER | {"C": 2, "K": 5}).to(torch.float32)
    inputs.chunk_indices[0, 0, :3] = -1  # nothing in the first splits
    inputs.chunk_indices[0, 1] = -1
    for few in (1, 10_000):  # programs; 1 for no split, else one split for each chunk
        monkeypatch.setattr(triton_forward, "FEW_PROGRAMS", few)
        forget_plans()
        for sink_logit in (None, 1.5):
            check(inputs, torch.float32, sink_logit=sink_logit, mixing=mixing)
    forget_plans()


@MIXINGS
@pytest.mark.parametrize(
    "dtype", [pytest.param(d, marks=pytest.mark.slow) for d in DTYPES[1:]] + DTYPES[:1], ids=str
)
def test_chunks_that_are_full_need_no_lengths(dtype, mixing):
    inputs = draw(**{} if dtype == torch.float32 else LARGER, S=16, D=16)
    check(inputs, dtype, chunk_lengths=None, scale=0.3, mixing=mixing)


@pytest.mark.slow
def test_a_popular_chunk_is_cut_into_segments_and_added_up():
    # 150 readers of chunk 0, none of chunk 2: more than the longest segment holds
    inputs = draw(B=2, C=50, M=2, H=2, G=2, D=16, N=3, S=4, K=3, seed=0)
    inputs.chunk_indices[:, :, :] = 0
    inputs.chunk_indices[0, 7, 1] = 1
    fast = check(inputs, torch.float32)
    assert not fast[2][:, 2].any() and not fast[3][:, 2].any()


def test_readers_are_found_among_more_pairs_than_a_program_reads_at_once(monkeypatch):
    from gcattn.ops.grouped_cross_attention import readers

    monkeypatch.setattr(readers, "_MAX_BLOCK_P", 8)
    forget_plans()
    # 20 pairs, and more chunks than a program counts
    check(draw(B=1, C=5, M=1, H=1, G=1, S=1, D=16, N=11, K=4), torch.float32)
    forget_plans()


@pytest.mark.parametrize("mixing", ["separate", "joint"])
def test_rows_that_retrieved_nothing_give_zero_and_no_gradient(mixing):
    inputs = draw(S=16, D=16)
    inputs.chunk_indices[:, 1] = -1
    inputs.chunk_weights[:, 1] = torch.nan  # ignored where the slot is empty
    out, dq, dk, dv, dweights = run(inputs.to(torch.float32), "triton", mixing=mixing)
    assert not out[:, 1].any() and not dq[:, 1].any() and not dweights[:, 1].any()
    assert all(torch.isfinite(x).all() for x in (out, dq, dk, dv, dweights))


def test_a_weight_of_zero_has_a_gradient():
    inputs = draw(S=16, D=16)
    inputs.chunk_weights.zero_()
    dweights = check(inputs, torch.float32)[4]
    assert dweights[inputs.chunk_indices >= 0].abs().max() > 0


@pytest.mark.parametrize("sink_logit", [None, 1.5])
def test_a_joint_weight_of_zero_has_a_gradient(sink_logit):
    inputs = draw(S=16, D=16)
    inputs.chunk_weights[..., 0] = 0
    inputs.chunk_weights[:, 1] = 0
    is_filled = inputs.chunk_indices[..., 0] >= 0
    dweights = check(inputs, torch.float32, mixing="joint", sink_logit=sink_logit)[4]
    assert dweights[..., 0][is_filled].abs().max() > 0


@pytest.mark.parametrize(
    "sink_logit", [None, pytest.param(1.5, marks=[] if ON_GPU else pytest.mark.slow)]
)
def test_a_joint_weight_of_zero_keeps_its_gradient_where_its_logits_are_far_above(sink_logit):
    inputs = draw(**LARGER, S=16, D=16)
    inputs.chunk_weights[..., 0] = 0
    inputs.chunk_weights[:, 1] = 0
    check(replace(inputs, q=inputs.q * 30), torch.float32, mixing="joint", sink_logit=sink_logit)


@MIXINGS
@pytest.mark.parametrize(
    "case",
    [{}, pytest.param({"B": 1, "C": 30, "N": 2, "K": 4}, marks=pytest.mark.slow)],
    ids=str,
)
def test_two_runs_are_bitwise_equal(case, mixing):
    inputs = draw(**case).to(DTYPES[-1])
    runs = [run(inputs, "triton", mixing=mixing) for _ in range(2)]
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)


@MIXINGS
def test_every_value_is_written(monkeypatch, mixing):
    poisoned = []

    def empty(*args, real, **kwargs):
        out = real(*args, **kwargs)
        poisoned.append(out)
        return out.fill_(torch.nan) if out.is_floating_point() else out.fill_(-(2**30))

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, real=real, **k: empty(*a, real=real, **k))
    inputs = draw(C=4, S=11, D=20, K=4).to(torch.float32)
    inputs.chunk_indices[:, 2] = -1
    results = run(inputs, "triton", mixing=mixing)
    assert len(poisoned) > 5
    assert all(torch.isfinite(x).all() for x in results)


def test_any_strides_are_read():
    inputs = draw(S=16, D=16).to(torch.float32)

    def spread(x):  # the same numbers, every second row of a larger tensor, heads in front
        wide = torch.randn(*x.shape[:2], x.shape[3], x.shape[2], 2 * x.shape[4], device=x.device)
        view = wide.transpose(2, 3)[..., : x.shape[4]]
        return view.copy_(x)

    strided = replace(inputs, q=spread(inputs.q), k=spread(inputs.k), v=spread(inputs.v))
    assert not strided.k.is_contiguous()

    def forward(x):
        return grouped_cross_attention(
            x.q, x.k, x.v, x.chunk_indices, x.chunk_weights, impl="triton"
        )

    assert torch.equal(forward(strided), forward(inputs))


def test_inference_saves_nothing_for_a_backward_pass():
    inputs = draw().to(torch.float32)
    trained = run(inputs, "triton")[0]
    with torch.no_grad():
        assert torch.equal(
            grouped_cross_attention(
                inputs.q,
                inputs.k,
                inputs.v,
                inputs.chunk_indices,
                inputs.chunk_weights,
                chunk_lengths=inputs.chunk_lengths,
                impl="triton",
            ),
            trained,
        )


def test_what_the_kernels_cannot_do_is_refused_by_name():
    inputs = draw()
    with pytest.raises(ValueError, match="takes bfloat16, float16 or float32"):
        run(inputs, "triton")
    wide = draw(S=129).to(torch.float32)
    with pytest.raises(ValueError, match="S <= 128"):
        run(wide, "triton")
    large = draw(S=65, D=129).to(torch.float32)
    with pytest.raises(ValueError, match="in float32, got S = 65 and D = 129"):
        run(large, "triton")


def test_kernels_need_a_gpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    inputs = cross_attention_inputs().to(torch.float32)
    with pytest.raises(RuntimeError, match="needs CUDA tensors"):
        run(inputs, "triton")


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
def test_pinned_host_memory_is_read_in_place():
    inputs = draw(C=1, M=1, S=64, D=64).to(torch.bfloat16)

    def forward(k, v):
        return grouped_cross_attention(
            inputs.q, k, v, inputs.chunk_indices, inputs.chunk_weights, impl="triton"
        )

    pinned = (x.cpu().pin_memory() for x in (inputs.k, inputs.v))
    assert torch.equal(forward(*pinned), forward(inputs.k, inputs.v))


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
def test_a_pool_of_more_than_two_to_the_31_elements_is_read_right():
    N, S, D = 530_000, 64, 64  # 2.17e9 elements
    pool = torch.zeros(1, N, S, 1, D, dtype=torch.bfloat16, device=DEVICE)
    pool[:, -2:] = torch.randn(1, 2, S, 1, D, device=DEVICE).bfloat16()
    q = torch.randn(1, 2, 64, 1, D, device=DEVICE).bfloat16()
    weights = torch.rand(1, 2, 2, device=DEVICE)
    far = torch.tensor([[[N - 1, N - 2], [N - 2, -1]]], device=DEVICE)
    near = torch.tensor([[[1, 0], [0, -1]]], device=DEVICE)
    tail = pool[:, -2:].contiguous()
    assert torch.equal(
        grouped_cross_attention(q, pool, pool, far, weights, impl="triton"),
        grouped_cross_attention(q, tail, tail, near, weights, impl="triton"),
    )


@pytest.mark.parametrize("mixing", ["separate", pytest.param("joint", marks=pytest.mark.slow)])
def test_operator_compiles_into_one_graph(mixing):
    inputs = draw().to(torch.float32)

    def loss(q, k, v, weights):
        out = grouped_cross_attention(
            q, k, v, inputs.chunk_indices, weights, mixing=mixing, impl="triton"
        )
        return out.square().sum()

    gradients = []
    for function in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        leaves = [getattr(inputs, name).clone().requires_grad_() for name in NAMES]
        function(*leaves).backward()
        gradients.append([leaf.grad for leaf in leaves])
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain)
