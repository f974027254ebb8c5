"""Operations and bytes are those that one counts by hand."""

import pytest

from benchmarks.costs import (
    Ceilings,
    cross_attention_flops,
    filled_slots,
    floor_ms,
    full_attention_flops,
    least_bytes,
    window_flops,
)
from benchmarks.shapes import OperatorShape, anchor_shapes, shapes_by_length

SMALL = OperatorShape(
    batch=2,
    length=40,
    heads=4,
    kv_heads=2,
    head_dim=6,
    top_k=3,
    chunk_size=8,
    window=7,
    dtype="float32",
)


def test_filled_slots_are_counted_chunk_by_chunk():
    for C in range(1, 12):
        for K in range(1, 9):
            assert filled_slots(C, K) == sum(min(K, c) for c in range(C))


def test_operations_are_those_of_a_count_over_pairs():
    per_pair = 4 * SMALL.batch * SMALL.heads * SMALL.head_dim
    slots = sum(min(3, c) for c in range(5))
    assert cross_attention_flops(SMALL) == per_pair * slots * 8 * 8
    seen = [(i, j) for i in range(40) for j in range(i + 1)]
    assert full_attention_flops(SMALL) == per_pair * len(seen)
    assert window_flops(SMALL) == per_pair * len([1 for i, j in seen if i - j < 7])


def test_long_rows_cost_what_the_plain_formulas_say():
    (shape,) = shapes_by_length(OperatorShape(length=1024), [2**20])
    B, L, H, D = shape.batch, shape.length, shape.heads, shape.head_dim
    assert cross_attention_flops(shape) == pytest.approx(4 * B * L * H * D * 8 * 64, rel=1e-3)
    assert full_attention_flops(shape) == pytest.approx(2 * B * H * L**2 * D, rel=1e-3)
    assert window_flops(shape) == pytest.approx(4 * B * L * 512 * H * D, rel=1e-3)


def test_bytes_are_those_of_the_tensors_that_must_move():
    query, pool = 2 * 40 * 4 * 6 * 4, 2 * 40 * 2 * 6 * 4
    assert least_bytes(SMALL, backward=False) == 2 * query + 2 * pool
    # forward, then q, k, v and the output's gradient read, three gradients written
    assert least_bytes(SMALL, backward=True) == 2 * query + 2 * pool + 3 * query + 4 * pool


def test_floor_is_set_by_whatever_is_slower():
    ceilings = Ceilings(bytes_per_second=1e12, flops_per_second=1e14)
    assert floor_ms(1e12, 1e9, ceilings) == pytest.approx(10.0)
    assert floor_ms(1e9, 1e10, ceilings) == pytest.approx(10.0)


def test_anchor_shapes_stay_what_they_are():
    labels = [shape.label() for shape in anchor_shapes()]
    assert labels == [
        "B1 L16k H12 D64 K8 S64",
        "B4 L16k H12 D64 K8 S64",
        "B1 L16k H16 D128 K8 S64",
    ]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"length": 100}, "multiple of chunk_size = 64"),
        ({"length": 64}, "at least two chunks"),
        ({"length": 128, "heads": 3, "kv_heads": 2}, "multiple of kv_heads = 2"),
        ({"length": 128, "dtype": "int8"}, "dtype must be one of bfloat16"),
        ({"length": 128, "top_k": 0}, "top_k must be at least 1"),
    ],
)
def test_impossible_shapes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        OperatorShape(**sizes)
