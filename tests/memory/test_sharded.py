"""A memory that lies on several processes is chosen from and read as one memory, bit for bit."""

import itertools
import sys

import pytest
import torch

from gcattn import (
    DRTCache,
    MemoryWriter,
    chunk_topk,
    delete_documents,
    merge_memories,
    open_memory,
)
from gcattn.memory.saved.landmarks import ExactLandmarks
from gcattn.memory.sharded import ShardedChunks
from gcattn.memory.stores.store import ChunkReader, GatheredChunks
from gcattn.ops.chunk_topk.candidates import holder_bounds
from gcattn.testing import random_config, random_model, random_tokens
from processes import run_together

E, S, G, D = 12, 5, 2, 4
BLOCK = 4


class Share(ChunkReader):
    """Chunks that are drawn, many of them equal, some of which may not be chosen."""

    def __init__(self, num_chunks, seed, dtype):
        generator = torch.Generator().manual_seed(seed)
        kinds = torch.randn(num_chunks // 3 + 1, E, generator=generator, dtype=torch.float64)
        self.scored = kinds[torch.randint(len(kinds), (num_chunks,), generator=generator)].to(dtype)
        self.chunks = torch.randn(num_chunks, 2, S, G, D, generator=generator).to(dtype)
        self.lengths = torch.randint(1, S, (num_chunks,), generator=generator)
        self.visible = torch.rand(num_chunks, generator=generator) < 0.8

    def part(self, first, end):
        part = object.__new__(Share)
        vars(part).update({name: x[first:end] for name, x in vars(self).items()})
        return part

    @property
    def num_chunks(self):
        return len(self.lengths)

    @property
    def landmarks(self):
        return ExactLandmarks(self.scored, self.visible)

    @property
    def reader(self):
        return self

    def gather(self, numbers):
        keys, values = self.chunks[numbers].unbind(1)
        return GatheredChunks(keys, values, self.lengths[numbers])

    def num_bytes(self):
        return {}


def queries(seed, dtype, count=7):
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randn(count, E, generator=generator, dtype=torch.float64).to(dtype)


def ask_all(rank, cases):
    """Choose and read in one of several processes."""
    return [
        ask(ShardedChunks(whole.part(*bounds[rank : rank + 2])), *asked)
        for whole, bounds, *asked in cases
    ]


def ask(chunks, asked, top_k):
    best = chunks.landmarks.best(asked, top_k)
    numbers = best.indices[best.indices >= 0].unique()
    landmarks = chunks.landmarks.at(numbers)
    return *best, landmarks, chunks.landmarks.may_be_chosen, *chunks.reader.gather(numbers)


@pytest.mark.parametrize("count", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_choose_and_read_what_one_does_ties_included(count, monkeypatch):
    monkeypatch.setattr(sys.modules["gcattn.ops.chunk_topk.reference"], "SCORE_BLOCK", BLOCK)
    cases = [
        (Share(n, seed, dtype), holder_bounds(n, count, BLOCK), queries(seed, dtype), top_k)
        for dtype in (torch.float64, torch.float32, torch.bfloat16)
        for seed, (n, top_k) in enumerate([(45, 6), (9, 4), (3, 5), (0, 3)])
    ]
    expected = [ask(whole, *asked) for whole, _, *asked in cases]
    for found in run_together(count, ask_all, cases):
        for one, several in zip(expected, found, strict=True):
            for x, y in zip(one, several, strict=True):
                assert torch.equal(x, y)


def test_one_process_chooses_as_the_operator_does():
    whole, asked = Share(45, 0, torch.float64), queries(0, torch.float64)
    visible = torch.full((1, len(asked)), 45)
    expected = chunk_topk(
        asked[None],
        whole.scored[None],
        visible,
        6,
        query_documents=torch.ones_like(visible),
        landmark_documents=whole.visible.long()[None],
    )
    assert torch.equal(whole.landmarks.best(asked, 6).indices, expected.indices[0])


@pytest.mark.parametrize(("num_chunks", "count"), [(0, 3), (5, 4), (64, 3), (1000, 7)])
def test_shares_begin_at_blocks_and_are_as_equal_as_can_be(num_chunks, count):
    bounds = holder_bounds(num_chunks, count, BLOCK)
    assert bounds[0] == 0 and bounds[-1] == num_chunks and bounds == sorted(bounds)
    assert all(bound % BLOCK == 0 or bound == num_chunks for bound in bounds)
    sizes = [-(-(b - a) // BLOCK) for a, b in itertools.pairwise(bounds)]
    assert max(sizes) - min(sizes) <= 1


def answer(memory, model, question):
    cache = DRTCache(model.config, memory=memory)
    output = model.generate(
        question,
        cache=cache,
        max_new_tokens=12,
        do_sample=False,
        output_retrieval=True,
        output_logits=True,
        return_dict_in_generate=True,
    )
    retrieved = [selection.indices for call in output.retrieval for selection in call]
    return output.sequences, torch.stack(output.logits), retrieved


def answer_together(rank, folders, form, model, question):
    memory = open_memory(folders[rank], landmarks=form)
    return answer(ShardedChunks(memory), model, question)


@pytest.mark.parametrize(
    ("count", "form"),
    [(2, "int8"), (3, "exact"), pytest.param(4, "int8", marks=pytest.mark.slow)],
)
def test_a_model_answers_from_several_processes_as_from_one(count, form, tmp_path):
    model = random_model(random_config(3, chunk_size=6, num_retrieval_groups=2, num_upper_layers=4))
    folders = [tmp_path / str(rank) for rank in range(count)]
    for rank, folder in enumerate(folders):
        with MemoryWriter(folder, model) as writer:
            for n in range(2):
                writer.begin(f"text {rank}, {n}")
                ids = random_tokens(model.config, 1, 5 * (5 + rank), 2 * rank + n)
                got = model.base_model.encode_chunks(ids)
                writer.append(got.landmarks[0], got.keys[0], got.values[0], got.lengths[0], ids[0])
                writer.end()
        delete_documents(folder, [0])
    merge_memories(folders, tmp_path / "whole")
    whole = open_memory(tmp_path / "whole")
    question = random_tokens(model.config, 1, 14, seed=9)
    tokens, logits, retrieved = answer(whole, model, question)
    chunks = torch.cat([x.flatten() for x in retrieved])
    shared = chunks[(chunks >= 0) & (chunks < whole.num_chunks)]
    read = {whole.documents.of_chunk(chunk).number for chunk in shared.tolist()}
    assert max(read) == 2 * count - 1 and all(number % 2 for number in read)
    for found in run_together(count, answer_together, folders, form, model, question):
        assert torch.equal(found[0], tokens)
        torch.testing.assert_close(found[1], logits)
        for x, y in zip(found[2], retrieved, strict=True):
            assert torch.equal(x, y)
