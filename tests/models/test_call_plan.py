"""Plans that are made once and moved along are those that would be made anew."""

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from torch import Tensor

from gcattn import DRTCache
from gcattn.chunking import ChunkState, plan_chunks
from gcattn.chunking.packing import moved_together
from gcattn.models import drt_tiny
from gcattn.models.call_plan import _row_plan, plan_call

CPU = torch.device("cpu")


def leaves(x, name="plan"):
    if isinstance(x, Tensor):
        yield name, x
    elif is_dataclass(x):
        for field in fields(x):
            yield from leaves(getattr(x, field.name), f"{name}.{field.name}")


def assert_same(found, expected):
    found, expected = dict(leaves(found)), dict(leaves(expected))
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert x.dtype == found[name].dtype and torch.equal(x, found[name]), name


def state_of(seed, B, chunk_size):
    generator = torch.Generator().manual_seed(seed)

    def draw(high):
        return torch.randint(0, high, (B,), generator=generator)

    lengths = draw(chunk_size - 1)
    if seed % 2:
        lengths[:] = chunk_size - 2  # every row closes its chunk
    return ChunkState(lengths, draw(9), draw(300), draw(5), draw(50), draw(2).bool())


@pytest.mark.parametrize("serves", ["next_chunk", "from_landmark"])
@pytest.mark.parametrize("seed", range(6))
def test_a_token_is_planned_as_any_other_call(seed, serves):
    config = drt_tiny(retrieval_serves=serves, chunk_size=7, window_size=3, num_upper_layers=1)
    stream = DRTCache(config)
    stream.position.move(state_of(seed, 1 + seed % 3, config.chunk_size))
    B = stream.num_rows
    nothing = {"chunk_breaks": None, "document_ids": None, "num_logits": 1}
    assert_same(
        *(
            plan_call(config, (B, 1), CPU, stream, attention_mask=mask, **nothing)
            for mask in (None, torch.ones(B, 1))
        )
    )


@pytest.mark.parametrize("serves", ["next_chunk", "from_landmark"])
@pytest.mark.parametrize("T", [1, 5, 6, 12, 40, 48])
@pytest.mark.parametrize("stands", ["beginning", "first document", "anywhere"])
def test_a_segment_that_begins_with_a_chunk_is_planned_as_any_other(T, serves, stands):
    config = drt_tiny(retrieval_serves=serves, chunk_size=7, window_size=3, num_upper_layers=1)
    stream, B = DRTCache(config), 3
    if stands != "beginning":
        state = replace(state_of(T, B, config.chunk_size), open_length=torch.zeros(B).long())
        if stands == "first document":
            state = replace(state, document=torch.zeros(B).long())
        stream.position.move(state)
    nothing = {"chunk_breaks": None, "document_ids": None, "num_logits": 1}
    for _ in range(2):  # made, and kept
        assert_same(
            *(
                plan_call(config, (B, T), CPU, stream, attention_mask=mask, **nothing)
                for mask in (None, torch.ones(B, T))
            )
        )


def test_a_plan_moves_in_few_copies_and_every_tensor_stays_aligned():
    breaks = torch.rand(2, 33, generator=torch.Generator().manual_seed(0)) < 0.2
    layout, _ = plan_chunks(2, 33, 7, chunk_breaks=breaks)
    parts = layout, layout.tail(11), layout.blocks(from_landmark=True)
    moved = moved_together(CPU, *parts)
    for found, expected in zip(moved, parts, strict=True):
        assert_same(found, expected)
    tensors = [x for part in moved for _, x in leaves(part)]
    assert len({x.untyped_storage().data_ptr() for x in tensors}) == 2  # integers, and bools
    assert all(x.data_ptr() % 16 == 0 for x in tensors if x.numel())


def test_segments_of_whole_chunks_are_planned_once():
    config = drt_tiny()
    stream, T = DRTCache(config), 3 * (config.chunk_size - 1)
    _row_plan.cache_clear()
    for _ in range(3):
        nothing = {"attention_mask": None, "chunk_breaks": None, "document_ids": None}
        plan = plan_call(config, (2, T), CPU, stream, num_logits=1, **nothing)
        stream.position.move(plan.state)
    assert _row_plan.cache_info().misses == 1 and stream.position.state.num_chunks[0] == 9


@pytest.mark.parametrize("serves", ["next_chunk", "from_landmark"])
@pytest.mark.parametrize("breaks", [[3], [3, 11], [0, 17], []])
@pytest.mark.parametrize("begins", [False, True])
def test_a_prompt_whose_chunks_close_early_is_planned_as_any_other_call(breaks, begins, serves):
    config = drt_tiny(retrieval_serves=serves, chunk_size=7, window_size=3, num_upper_layers=1)
    stream, B, T = DRTCache(config), 2, 18
    if not begins:
        state = replace(state_of(4, B, config.chunk_size), open_length=torch.zeros(B).long())
        stream.position.move(state)
    closes = torch.zeros(B, T + 1, dtype=torch.bool)  # the first column closes what is open
    closes[:, [1 + at for at in breaks]] = True
    options = {"chunk_breaks": closes, "document_ids": None, "num_logits": 1}
    _row_plan.cache_clear()
    assert_same(
        *(
            plan_call(config, (B, T), CPU, stream, attention_mask=mask, **options)
            for mask in (None, torch.ones(B, T))
        )
    )
    assert _row_plan.cache_info().misses == 1
