"""Chunk memories: what goes in comes out, wherever it lives."""

from types import SimpleNamespace

import pytest
import torch

from gcattn.memory import EncodedChunks, make_memory
from gcattn.memory.window import WindowCache

TIERS = ["device", "host", "disk"]  # which return what they were given, bit for bit


def chunks(B, F, seed=0, S=3, E=4):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    lengths = torch.randint(1, S, (B, F), generator=generator)
    documents = torch.zeros(B, F, dtype=torch.long)
    return EncodedChunks(
        normal(B, F, E), documents, normal(B, F, S, 1, 2), normal(B, F, S, 1, 2), lengths
    )


def read(memory, indices):
    """Gather what the memory says lies behind each index, [B, C, K, S, G, D]."""
    got = memory.fetch(indices, torch.ones(indices.shape))
    rows = torch.arange(indices.shape[0])[:, None, None]
    return (
        got.keys[rows, got.indices],
        got.values[rows, got.indices],
        got.lengths[rows, got.indices],
    )


@pytest.mark.parametrize("tier", TIERS)
def test_chunks_come_back_in_the_order_they_went_in(tier, monkeypatch):
    monkeypatch.setattr(
        "gcattn.memory.stores.blocks.LEAST_ITEMS", 4
    )  # several blocks, cut in the middle
    monkeypatch.setattr("gcattn.memory.stores.blocks.MOST_ITEMS", 7)
    memory, parts = make_memory(tier), [chunks(2, n, seed=n) for n in (3, 1, 9, 2)]
    for part in parts:
        memory.append(part, torch.tensor([part.keys.shape[1]] * 2))
    indices = torch.randint(0, 15, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    keys, values, lengths = read(memory, indices)
    rows = torch.arange(2)[:, None, None]
    assert torch.equal(keys, torch.cat([p.keys for p in parts], dim=1)[rows, indices])
    assert torch.equal(values, torch.cat([p.values for p in parts], dim=1)[rows, indices])
    assert torch.equal(lengths, torch.cat([p.lengths for p in parts], dim=1)[rows, indices])
    assert torch.equal(memory.landmarks, torch.cat([p.landmarks for p in parts], dim=1))


def test_expected_chunks_have_room_from_the_start_and_more_may_come():
    memory = make_memory("device", expected_chunks=40)
    memory.append(chunks(2, 3), torch.tensor([3, 3]))
    keys = memory.tensors()["keys"]
    memory.append(chunks(2, 30), torch.tensor([30, 30]))
    assert memory.tensors()["keys"].data_ptr() == keys.data_ptr()
    memory.append(chunks(2, 20), torch.tensor([20, 20]))
    assert memory.num_chunks.tolist() == [53, 53]
    assert memory.tensors()["keys"].data_ptr() != keys.data_ptr()


@pytest.mark.parametrize("tier", TIERS)
def test_rows_may_hold_unequal_numbers_of_chunks(tier):
    memory, first, second = make_memory(tier), chunks(2, 2, seed=0), chunks(2, 2, seed=1)
    memory.append(first, torch.tensor([2, 0]))
    memory.append(second, torch.tensor([1, 2]))
    assert memory.num_chunks.tolist() == [3, 2]
    assert (memory.documents == torch.tensor([[0, 0, 0], [0, 0, -1]])).all()
    keys, _, _ = read(memory, torch.tensor([[[2]], [[0]]]))
    assert torch.equal(keys[:, 0, 0], second.keys[:, 0])


@pytest.mark.parametrize("tier", TIERS)
def test_empty_slots_stay_empty_and_an_empty_memory_can_be_read(tier):
    memory = make_memory(tier)
    memory.append(chunks(2, 0), torch.tensor([0, 0]))
    got = memory.fetch(torch.full((2, 1, 3), -1), torch.zeros(2, 1, 3))
    assert (got.indices == -1).all()
    assert got.keys.shape == (2, 0, 3, 1, 2)
    memory.append(chunks(2, 2), torch.tensor([2, 2]))
    got = memory.fetch(torch.tensor([[[1, -1]], [[-1, -1]]]), torch.zeros(2, 1, 2))
    assert (got.indices == -1).tolist() == [[[False, True]], [[True, True]]]


@pytest.mark.parametrize("tier", TIERS)
def test_repeated_rows_share_their_past_and_then_part(tier):
    memory, past = make_memory(tier), chunks(1, 3)
    memory.append(past, torch.tensor([3]))
    before = memory.num_bytes()
    memory.select_rows(torch.tensor([0, 0]))
    after = memory.num_bytes()
    keys_values = past.keys.numel() * 4 * 2
    # a second row of landmarks, and no second copy of the keys and values
    assert sum(after.values()) - sum(before.values()) == past.landmarks.numel() * 4 < keys_values
    new = chunks(2, 1, seed=5)
    memory.append(new, torch.tensor([1, 1]))
    keys, _, _ = read(memory, torch.tensor([[[2, 3]], [[2, 3]]]))
    assert torch.equal(keys[:, 0, 0], past.keys[:, 2].expand(2, -1, -1, -1))
    assert torch.equal(keys[:, 0, 1], new.keys[:, 0])


def test_host_memory_keeps_keys_and_values_off_the_device():
    on_device, on_host = make_memory("device"), make_memory("host")
    for memory in (on_device, on_host):
        memory.append(chunks(1, 8), torch.tensor([8]))
    landmarks, keys_values = 8 * 4 * 4, 8 * 3 * 2 * 2 * 4
    nothing = {"device": 0, "host": 0, "disk": 0}
    assert on_device.num_bytes() == nothing | {"device": landmarks + keys_values}
    assert on_host.num_bytes() == nothing | {"device": landmarks, "host": keys_values}
    on_host.fetch(torch.tensor([[[5, 2]]]), torch.ones(1, 1, 2))
    assert on_host.num_bytes()["device"] == landmarks + keys_values // 4


def test_unknown_tier_is_refused():
    with pytest.raises(ValueError, match=r"must be one of .*'recompute'.*, got 'tape'"):
        make_memory("tape")


def columns_of(documents, *, is_full=True):
    """Return as much of a layout as a window looks at."""
    return SimpleNamespace(documents=documents, is_full=is_full)


def test_window_keeps_the_last_used_columns_of_each_row():
    window = WindowCache(window_size=4)
    documents = torch.tensor([[0, 0, 0, 0, 0], [0, 0, -1, -1, -1]])
    columns = torch.arange(10.0).reshape(2, 5, 1, 1)
    window.begin(columns_of(documents, is_full=False))
    window.extend(0, columns, columns)
    window.begin(columns_of(torch.tensor([[0], [0]])))
    keys, _ = window.extend(0, torch.tensor([[[[50.0]]], [[[60.0]]]]), torch.zeros(2, 1, 1, 1))
    assert keys.squeeze().tolist()[0] == [2, 3, 4, 50]
    assert window.key_documents[1].tolist() == [-1, 0, 0, 0]
    assert keys.squeeze().tolist()[1][1:] == [5, 6, 60]


def test_window_whose_columns_are_all_used_need_not_be_looked_up():
    torch.manual_seed(0)
    known, unknown = (WindowCache(window_size=6) for _ in range(2))
    for num_columns in (1, 3, 40, 1, 1, 13):
        columns = torch.randn(3, num_columns, 2, 4)
        documents = torch.zeros(3, num_columns, dtype=torch.long)
        for window, is_full in ((known, True), (unknown, False)):
            window.begin(columns_of(documents, is_full=is_full))
        for layer in range(2):
            pairs = zip(
                *(w.extend(layer, columns, -columns) for w in (known, unknown)), strict=True
            )
            assert all(torch.equal(a, b) for a, b in pairs)
        assert torch.equal(known.key_documents, unknown.key_documents)
        kept, expected = known.tensors(), unknown.tensors()
        assert kept.keys() == expected.keys()
        assert all(torch.equal(kept[name], expected[name]) for name in kept)
        assert known.num_bytes() == unknown.num_bytes()


def test_window_does_not_keep_a_segment_alive():
    window = WindowCache(window_size=6)
    columns = torch.randn(1, 1000, 2, 4)
    window.begin(columns_of(torch.zeros(1, 1000, dtype=torch.long)))
    window.extend(0, columns, columns)
    for kept in window.tensors().values():
        assert kept.untyped_storage().nbytes() == kept.numel() * kept.element_size()


@pytest.mark.parametrize("tier", [*TIERS, "host-int8", "recompute"])
def test_an_empty_memory_takes_no_bytes(tier):
    assert make_memory(tier).num_bytes() == {"device": 0, "host": 0, "disk": 0}
