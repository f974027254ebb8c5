"""Fused kernels between matrix products: bitwise their lines in PyTorch where these round."""

import os

import pytest
import torch

from gcattn.nn.rms_norm import RMSNorm, add_and_norm
from gcattn.ops.pointwise import (
    add_rms_norm,
    extend_columns,
    mix_columns,
    rms_norm,
    rotary_angles,
    rotate,
    silu_times,
    take_entries,
    write_columns,
)

pytest.importorskip("triton", reason="Triton is not installed")
ON_GPU = torch.cuda.is_available()
pytestmark = pytest.mark.skipif(
    not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs a GPU or TRITON_INTERPRET=1",
)
DEVICE = "cuda" if ON_GPU else "cpu"
# the interpreter cuts bfloat16 off where a GPU rounds it
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if ON_GPU else [])]


def draw(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def heads_and_angles(B, L, H, G, D, dtype, rows):
    positions = torch.arange(rows * L, device=DEVICE).view(rows, L) * 37
    angles = rotary_angles(positions, D, 1e4, dtype)
    return draw(B, L, H, D, dtype=dtype), draw(B, L, G, D, dtype=dtype, seed=1), angles


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 3], ids=["shared positions", "own positions"])
@pytest.mark.parametrize("sizes", [(3, 1, 12, 12, 16), (3, 5, 6, 2, 6)], ids=str)
def test_rotated_heads_are_bitwise_those_of_the_lines(dtype, rows, sizes):
    q, k, angles = heads_and_angles(*sizes, dtype, rows)
    for fast, plain in zip(
        rotate(q, k, angles, impl="triton"), rotate(q, k, angles, impl="reference"), strict=True
    ):
        assert torch.equal(fast, plain)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("D", [16, 6])
def test_angles_are_bitwise_those_of_the_lines_even_at_sixteen_million(dtype, D):
    positions = torch.tensor([[0, 1, 513], [16 * 2**20, 16 * 2**20 + 1, 77]], device=DEVICE)
    for fast, plain in zip(
        rotary_angles(positions, D, 1e4, dtype, impl="triton"),
        rotary_angles(positions, D, 1e4, dtype, impl="reference"),
        strict=True,
    ):
        assert fast.shape == (2, 3, 1, D)
        assert torch.equal(fast, plain)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 3], ids=["shared positions", "own positions"])
@pytest.mark.parametrize(("L", "E", "taps"), [(1, 768, 4), (5, 37, 3), (4, 1030, 1)])
def test_mixed_columns_are_bitwise_those_of_the_lines(dtype, rows, L, E, taps):
    x = draw(3, taps - 1 + L, E, dtype=dtype)
    weight = draw(taps, E, seed=1)
    positions = torch.arange(rows * L, device=DEVICE).view(rows, L)
    fast, plain = (mix_columns(x, weight, positions, impl=impl) for impl in ("triton", "reference"))
    assert torch.equal(fast, plain)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 2048), (2, 3, 37)], ids=str)
def test_gated_product_rounds_where_the_lines_do(dtype, shape):
    gate, up = draw(*shape, dtype=dtype) * 4, draw(*shape, dtype=dtype, seed=1)
    fast, plain = (silu_times(gate, up, impl=impl) for impl in ("triton", "reference"))
    # exponentials may differ in their last bit, which may turn a rounding
    torch.testing.assert_close(fast, plain, rtol=2 * torch.finfo(dtype).eps, atol=1e-7)
    assert (fast == plain).float().mean() > (0.5 if dtype == torch.float32 else 0.95)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 768), (2, 3, 37)], ids=str)
@pytest.mark.parametrize("weight_dtype", [None, torch.float32], ids=["own", "wide weight"])
def test_normed_rows_round_once(dtype, shape, weight_dtype):
    x = draw(*shape, dtype=dtype)
    weight = draw(shape[-1], dtype=weight_dtype or dtype, seed=1)
    fast, plain = (rms_norm(x, weight, 1e-6, impl=impl) for impl in ("triton", "reference"))
    assert fast.dtype == dtype
    torch.testing.assert_close(fast, plain, rtol=4 * torch.finfo(dtype).eps, atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sum_is_rounded_before_it_is_normed(dtype):
    x, added, weight = draw(2, 3, 37, dtype=dtype), draw(2, 3, 37, dtype=dtype, seed=1), draw(37)
    total, normed = add_rms_norm(x, added, weight, 1e-6, impl="triton")
    assert torch.equal(total, x + added)
    assert torch.equal(normed, rms_norm(x + added, weight, 1e-6, impl="triton"))


@torch.no_grad()
def test_a_norm_with_a_hook_is_called():
    norm = RMSNorm(8, eps=1e-6).to(DEVICE)
    norm.register_forward_hook(lambda *_: torch.zeros(1))
    total, normed = add_and_norm(draw(2, 8), draw(2, 8, seed=1), norm)
    assert torch.equal(normed, torch.zeros(1)) and total.shape == (2, 8)


def test_a_normed_row_is_bitwise_the_same_among_others():
    x, weight = draw(7, 768), draw(768, seed=1)
    whole = rms_norm(x, weight, 1e-6, impl="triton")
    assert torch.equal(rms_norm(x[2:3], weight, 1e-6, impl="triton"), whole[2:3])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_columns_are_written_where_they_belong_and_nowhere_else(dtype):
    at = torch.tensor([4, 0, 6], device=DEVICE)
    columns = draw(3, 1, 2, 5, dtype=dtype), draw(3, 1, 2, 5, dtype=dtype, seed=1)
    rings = [
        tuple(torch.full((3, 7, 2, 5), torch.nan, dtype=dtype, device=DEVICE) for _ in range(2))
        for _ in range(2)
    ]
    for pair, impl in zip(rings, ("triton", "reference"), strict=True):
        write_columns(pair, columns, at, impl=impl)
    for fast, plain, column in zip(*rings, columns, strict=True):
        torch.testing.assert_close(fast, plain, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(fast[1, 0], column[1, 0])


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int64], ids=str)
@pytest.mark.parametrize(
    ("places", "rest"),
    # the last are wider than what one program moves
    [((4,), ()), ((3, 5), ()), ((3, 5), (5,)), ((4,), (2, 3)), ((3, 5), (2, 3)), ((2,), (2100,))],
    ids=str,
)
@pytest.mark.parametrize("fill", [0, -1, "entry"])
def test_taken_entries_are_bitwise_those_of_the_lines(dtype, places, rest, fill):
    x = (draw(3, 9, *rest) * 100).to(dtype)
    index = torch.randint(-1, 9, (3, *places), generator=torch.Generator().manual_seed(1))
    if fill == "entry":
        fill = draw(*rest, seed=2).to(dtype)
    index = index.to(DEVICE)
    pieces = x.transpose(0, 1).contiguous().transpose(0, 1)
    for entries, asked in (
        (x, index),
        (x[:, :8], index.clamp_max(7)[..., 1:]),
        (pieces, index[:1].expand(3, *places)),
        (x[:, ::2], index.clamp_max(4).flip(0)[..., ::2]),
    ):
        fast, plain = (
            take_entries(entries, asked, fill, impl=impl) for impl in ("triton", "reference")
        )
        assert fast.dtype == dtype and torch.equal(fast, plain)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("heads", [(2, 6), (3, 700)], ids=str)
@pytest.mark.parametrize(
    ("P", "L", "num_last"), [(0, 9, 3), (0, 4, 4), (3, 9, 4), (3, 1, 3), (5, 1, 2), (3, 5, 0)]
)
def test_extended_columns_are_bitwise_those_of_the_lines(dtype, heads, P, L, num_last):
    new = tuple(draw(2, L, *heads, dtype=dtype, seed=seed) for seed in range(2))
    kept = tuple(draw(2, P, *heads, dtype=dtype, seed=seed) for seed in (2, 3)) if P else None
    fast, plain = (
        [x for pair in extend_columns(kept, new, num_last, impl=impl) for x in pair]
        for impl in ("triton", "reference")
    )
    for x, expected in zip(fast, plain, strict=True):
        assert torch.equal(x, expected)
    copied = 2 * num_last < P + L
    for whole, last in zip(fast[:2], fast[2:], strict=True):
        assert (last.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr()) == copied


def test_inputs_that_lie_in_pieces_are_read_right():
    x, weight = draw(5, 4, 12)[:, ::2], draw(12, seed=1)
    torch.testing.assert_close(
        rms_norm(x, weight, 1e-6, impl="triton"), rms_norm(x, weight, 1e-6, impl="reference")
    )
    gate, up = draw(6, 8).t(), draw(8, 6, seed=1)
    torch.testing.assert_close(
        silu_times(gate, up, impl="triton"), silu_times(gate, up, impl="reference")
    )


def test_nothing_is_computed_from_nothing():
    x, weight = draw(2, 0, 8), draw(8)
    assert rms_norm(x, weight, 1e-6, impl="triton").shape == (2, 0, 8)
    assert silu_times(x, x, impl="triton").shape == (2, 0, 8)
    nowhere = torch.zeros(2, 0, dtype=torch.long, device=DEVICE)
    assert mix_columns(draw(2, 2, 8), draw(3, 8), nowhere, impl="triton").shape == (2, 0, 8)
    assert rotary_angles(nowhere, 6, 1e4, torch.float32, impl="triton")[0].shape == (2, 0, 1, 6)
    entries = torch.full((2, 3), -1, device=DEVICE)
    for fill in (0, draw(8)):
        fast, plain = (
            take_entries(x, entries, fill, impl=impl) for impl in ("triton", "reference")
        )
        assert torch.equal(fast, plain) and fast.shape == (2, 3, 8)
        assert take_entries(draw(2, 4, 8), entries[:, :0], fill, impl="triton").shape == (2, 0, 8)
    q, k, angles = heads_and_angles(2, 0, 4, 2, 6, torch.float32, 1)
    assert rotate(q, k, angles, impl="triton")[1].shape == (2, 0, 2, 6)


def test_a_kernel_that_was_named_refuses_what_it_cannot_do():
    x = draw(2, 8).requires_grad_()
    with pytest.raises(ValueError, match='impl="triton" has no gradient; pass impl="reference"'):
        silu_times(x, x, impl="triton")
    with torch.no_grad():
        silu_times(x, x, impl="triton")
    with pytest.raises(ValueError, match="takes E <= 16384"):
        rms_norm(draw(1, 16385), draw(16385), 1e-6, impl="triton")
    with pytest.raises(ValueError, match="float64"):
        rms_norm(x.detach().double(), draw(8), 1e-6, impl="triton")
    with pytest.raises(ValueError, match=r"fills with an entry, \[8\] torch.float32, got \[3\]"):
        place = torch.zeros(2, 1, dtype=torch.long, device=DEVICE)
        take_entries(draw(2, 3, 8), place, draw(3), impl="triton")
    with pytest.raises(
        ValueError, match=r"takes one dtype .* got \['torch.float16', 'torch.float32'\]"
    ):
        extend_columns(
            None, (draw(1, 2, 1, 4), draw(1, 2, 1, 4, dtype=torch.float16)), 1, impl="triton"
        )
    ring = draw(2, 5, 3, 4).transpose(1, 2)
    with pytest.raises(ValueError, match="contiguous rings only"):
        at = torch.zeros(2, dtype=torch.long, device=DEVICE)
        write_columns((ring, ring), (draw(2, 1, 5, 4),) * 2, at, impl="triton")


def test_gradients_are_those_of_the_lines():
    q, k, angles = heads_and_angles(1, 3, 2, 2, 4, torch.float32, 1)
    x = draw(3, 8).requires_grad_()
    out = silu_times(rms_norm(x, draw(8, seed=1), 1e-6), x).sum()
    out = out + rotate(q.requires_grad_(), k, angles)[0].square().sum()
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(out, (x, q)))
