"""A library is divided into blocks that are read each by itself, and nothing tells that it was."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gcattn import DRTCache
from gcattn.library.blocks import block_of, group_files, halo_chunks, segments
from gcattn.library.encoding import EncodedText
from gcattn.library.files import SourceFile
from gcattn.testing import random_config, random_model, random_tokens

SEEDS = range(6)


def encoded(ids, first_place=0):
    ids = np.array(ids, dtype=np.int32)
    return EncodedText(ids, np.arange(first_place, first_place + len(ids), dtype=np.int32))


def files(*sizes, ending=".txt"):
    return [SourceFile(Path(f"{n:03}{ending}"), size, False) for n, size in enumerate(sizes)]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_lower_half_alone_makes_the_chunks_that_a_whole_call_remembers(seed):
    model = random_model(random_config(seed)).double()
    ids = random_tokens(model.config, 2, 97)
    mask, breaks = torch.ones_like(ids), torch.rand(2, 97) < 0.1
    mask[1, :31] = 0
    cache = DRTCache(model.config)
    with torch.no_grad():
        model(ids, attention_mask=mask, chunk_breaks=breaks, cache=cache)
    chunks = model.base_model.encode_chunks(ids, attention_mask=mask, chunk_breaks=breaks)
    held = cache.memory.tensors()
    row, place = (held["documents"] >= 0).nonzero(as_tuple=True)
    torch.testing.assert_close(chunks.landmarks[row, place], held["landmarks"][row, place])
    stored = held["store_index"][row, place]
    torch.testing.assert_close(chunks.keys[row, place], held["keys"][stored])
    torch.testing.assert_close(chunks.values[row, place], held["values"][stored])
    assert torch.equal(chunks.lengths[row, place], held["lengths"][stored])


@pytest.mark.parametrize("seed", SEEDS)
def test_segments_with_their_halo_make_the_chunks_of_the_whole_document(seed):
    config = random_config(seed, window_size=5 + seed, chunk_size=4 + seed)
    model = random_model(config).double().base_model
    per_chunk = config.chunk_size - 1
    text = random_tokens(config, 1, 30 * per_chunk + 2)
    ends = torch.zeros_like(text, dtype=torch.bool)
    ends[:, -1] = True
    whole = model.encode_chunks(text, chunk_breaks=ends)
    parts = [encoded(text[0, i : i + 11].numpy(), i) for i in range(0, text.shape[1], 11)]
    blocks = list(segments(parts, config, 3 * per_chunk + 1))
    assert [block.is_last for block in blocks] == [False] * (len(blocks) - 1) + [True]
    assert max(block.halo for block in blocks) == halo_chunks(config) * per_chunk
    made = 0
    for block in blocks:
        ids = torch.from_numpy(block.ids).long()[None]
        ends = torch.zeros_like(ids, dtype=torch.bool)
        ends[:, -1] = True
        chunks = model.encode_chunks(ids, chunk_breaks=ends)
        halo = block.halo // per_chunk
        count = chunks.landmarks.shape[1] - halo
        for name in ("landmarks", "keys", "values", "lengths"):
            torch.testing.assert_close(
                getattr(chunks, name)[:, halo:], getattr(whole, name)[:, made : made + count]
            )
        assert np.array_equal(block.places[block.halo :][:1], [made * per_chunk])
        made += count
    assert made == whole.landmarks.shape[1] == 31


def test_a_halo_one_chunk_shorter_would_change_the_chunks():
    config = random_config(1, window_size=9, chunk_size=5, num_lower_layers=2)
    model = random_model(config).double().base_model
    per_chunk, halo = config.chunk_size - 1, halo_chunks(config)
    text = random_tokens(config, 1, (halo + 6) * per_chunk)
    whole = model.encode_chunks(text).keys[:, -1]
    for missing, same in ((0, True), (2, False)):
        tail = text[:, (5 + missing) * per_chunk :]
        assert torch.allclose(model.encode_chunks(tail).keys[:, -1], whole, rtol=1e-9) == same


def test_small_files_share_a_block_and_a_large_text_stands_alone():
    groups = list(group_files(files(100, 200, 150, 900, 10, 20), block_tokens=100))
    assert [[f.num_bytes for f in group.files] for group in groups] == [
        [100, 200],
        [150],
        [900],
        [10, 20],
    ]
    assert [group.is_large for group in groups] == [False, False, True, False]
    assert [group.number for group in groups] == [0, 1, 2, 3]


def test_a_large_page_is_read_whole_since_its_text_cannot_be_had_in_parts():
    (group,) = group_files(files(900, ending=".html"), block_tokens=100)
    assert not group.is_large


def test_a_block_of_documents_says_where_each_begins_and_ends():
    block = block_of([encoded([1, 2]), encoded([]), encoded([3, 4, 5])])
    assert [(span.start, span.stop) for span in block.spans] == [(0, 2), (2, 2), (2, 5)]
    assert block.ids.tolist() == [1, 2, 3, 4, 5]
