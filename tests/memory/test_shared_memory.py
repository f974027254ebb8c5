"""Streams on a shared memory find what was read before them, and write nothing into it."""

import copy

import pytest
import torch

from gcattn import (
    DRTCache,
    MemoryWriter,
    delete_documents,
    load_cache,
    open_memory,
    save_cache,
)
from gcattn.chunking import ChunkState
from gcattn.memory.chunk_source import EncodedChunks
from gcattn.testing import random_config, random_model, random_tokens

EXACT = {"rtol": 0, "atol": 1e-10}
TIERS = ["disk", "device", "host", "host-int8", "recompute"]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model():
    sizes = {"chunk_size": 6, "window_size": 7, "retrieval_top_k": 3, "num_lower_layers": 2}
    return random_model(random_config(3, **sizes, num_retrieval_groups=2, num_upper_layers=4))


def texts_of(model, lengths, seed=0):
    return [random_tokens(model.config, 1, n, seed + i) for i, n in enumerate(lengths)]


def encoded(model, ids):
    breaks = torch.zeros_like(ids, dtype=torch.bool)
    breaks[:, -1] = True
    return model.model.encode_chunks(ids, chunk_breaks=breaks)


def write(folder, model, texts, **kwargs):
    with torch.no_grad(), MemoryWriter(folder, model, **kwargs) as writer:
        for n, ids in enumerate(texts):
            got = encoded(model, ids)
            writer.begin(f"text {n}")
            writer.append(got.landmarks[0], got.keys[0], got.values[0], got.lengths[0], ids[0])
            writer.end()
            writer.checkpoint()
    return folder


def stream_behind(model, texts, rows=1):
    """Return a cache whose own chunks are those of the texts, all of one document."""
    cache, total = DRTCache(model.config), 0
    for ids in texts:
        got = encoded(model, ids)
        n = got.landmarks.shape[1]
        whole = EncodedChunks(
            *(
                x.expand(rows, *x.shape[1:])
                for x in (
                    got.landmarks,
                    torch.zeros(1, n, dtype=torch.long),
                    got.keys,
                    got.values,
                    got.lengths,
                )
            )
        )
        cache.memory.append(whole, torch.full((rows,), n))
        total += n
    nothing = torch.zeros(rows, dtype=torch.long)
    state = ChunkState(nothing, nothing + total, nothing, nothing, nothing, nothing.bool())
    cache.position.move(state)
    return cache


def ask(model, cache, ids, sizes=(20, 1, 1, 1, 17), mask=None):
    outputs, at = [], 0
    for size in sizes:
        piece = slice(at, at + size)
        here = None if mask is None else mask[:, piece]
        outputs.append(model(ids[:, piece], attention_mask=here, past_key_values=cache).logits)
        at += size
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("tier", TIERS)
def test_a_question_finds_every_document_though_each_was_read_by_itself(model, tier, tmp_path):
    texts = texts_of(model, [33, 5, 61, 1, 12])
    memory = open_memory(write(tmp_path, model, texts, part_bytes=20_000), tier)
    question = random_tokens(model.config, 2, 40, seed=9)
    expected = ask(model, stream_behind(model, texts, rows=2), question)
    found = ask(model, DRTCache(model.config, memory=memory), question)
    tolerance = {"rtol": 0, "atol": 0.3} if tier == "host-int8" else EXACT
    torch.testing.assert_close(found, expected, **tolerance)


def test_disk_device_and_host_answer_bitwise_alike(model, tmp_path):
    write(tmp_path, model, texts_of(model, [33, 5, 61]), part_bytes=1)
    question = random_tokens(model.config, 2, 40, seed=9)
    mask = torch.ones_like(question)
    mask[1, :13] = 0
    answers = [
        ask(model, DRTCache(model.config, memory=open_memory(tmp_path, tier)), question, mask=mask)
        for tier in ("disk", "device", "host")
    ]
    assert torch.equal(answers[0], answers[1]) and torch.equal(answers[0], answers[2])


def test_landmarks_in_eight_bits_give_the_same_answers(model, tmp_path):
    write(tmp_path, model, texts_of(model, [33, 5, 61]), part_bytes=1)
    question, views = random_tokens(model.config, 2, 40, seed=9), []
    for form in ("exact", "int8"):
        memory = open_memory(tmp_path, landmarks=form)
        views.append([memory, memory.without([1])])
    for exact, rounded in zip(*views, strict=True):
        expected = ask(model, DRTCache(model.config, memory=exact), question)
        found = ask(model, DRTCache(model.config, memory=rounded), question)
        torch.testing.assert_close(found, expected, **EXACT)


def test_streams_on_one_memory_know_nothing_of_each_other(model, tmp_path):
    memory = open_memory(write(tmp_path, model, texts_of(model, [33, 61])))
    questions = [random_tokens(model.config, 1, 40, seed=seed) for seed in (7, 8)]
    alone = [ask(model, DRTCache(model.config, memory=memory), ids) for ids in questions]
    caches = [DRTCache(model.config, memory=memory) for _ in questions]
    steps = [[], []]
    for piece in range(0, 40, 8):  # turn by turn
        for ids, cache, logits in zip(questions, caches, steps, strict=True):
            logits.append(model(ids[:, piece : piece + 8], past_key_values=cache).logits)
    for logits, expected in zip(steps, alone, strict=True):
        torch.testing.assert_close(torch.cat(logits, dim=1), expected, **EXACT)
    assert copy.deepcopy(caches[0]).memory.shared is memory


def test_generation_with_beams_stands_on_a_memory(model, tmp_path):
    texts = texts_of(model, [33, 61])
    memory = open_memory(write(tmp_path, model, texts))
    ids = random_tokens(model.config, 1, 20, seed=9)
    for options in ({"num_beams": 1}, {"num_beams": 3}):
        output = model.generate(
            ids,
            cache=DRTCache(model.config, memory=memory),
            max_new_tokens=15,
            do_sample=False,
            pad_token_id=60,
            output_retrieval=True,
            return_dict_in_generate=True,
            **options,
        )
        read = torch.cat([s.indices.flatten() for step in output.retrieval for s in step])
        assert ((read >= 0) & (read < memory.num_chunks)).any()
        assert (read >= memory.num_chunks).any()  # its own chunks come behind


def test_deleted_and_hidden_documents_are_not_found(model, tmp_path):
    texts = texts_of(model, [33, 5, 61, 12])
    write(tmp_path, model, texts)
    memory, question = open_memory(tmp_path), random_tokens(model.config, 1, 40, seed=9)
    kept = ask(model, stream_behind(model, [texts[0], texts[3]]), question)
    for view in (memory.only([0, 3]), memory.without([1, 2]), memory.without([1]).without([2])):
        found = ask(model, DRTCache(model.config, memory=view), question)
        torch.testing.assert_close(found, kept, **EXACT)
    with MemoryWriter(tmp_path, model) as writer:
        writer.delete([1, 2])
    found = ask(model, DRTCache(model.config, memory=open_memory(tmp_path)), question)
    torch.testing.assert_close(found, kept, **EXACT)
    with pytest.raises(IndexError, match="has no document 4"):
        memory.only([4])


def test_a_memory_that_was_appended_to_equals_one_built_at_once(model, tmp_path):
    texts = texts_of(model, [33, 5, 61, 12])
    write(tmp_path / "appended", model, texts[:2])
    write(tmp_path / "appended", model, texts[2:])
    write(tmp_path / "at once", model, texts)
    appended, whole = open_memory(tmp_path / "appended"), open_memory(tmp_path / "at once")
    assert len(appended.description.parts) == 2 and len(whole.description.parts) == 1
    question = random_tokens(model.config, 1, 40, seed=9)
    answers = [ask(model, DRTCache(model.config, memory=m), question) for m in (appended, whole)]
    assert torch.equal(*answers)


def test_a_memory_of_token_ids_alone_answers_like_one_with_keys_and_values(model, tmp_path):
    texts = texts_of(model, [33, 5, 61])
    write(tmp_path / "ids", model, texts, keys_values=False)
    write(tmp_path / "whole", model, texts)
    question = random_tokens(model.config, 1, 40, seed=9)
    answers = [
        ask(model, DRTCache(model.config, memory=open_memory(tmp_path / name)), question)
        for name in ("ids", "whole")
    ]
    torch.testing.assert_close(*answers, **EXACT)
    with pytest.raises(ValueError, match="holds no keys and values"):
        open_memory(tmp_path / "ids", "host")


def test_a_saved_stream_goes_on_upon_its_memory_though_that_has_grown(model, tmp_path):
    texts = texts_of(model, [33, 61])
    memory = open_memory(write(tmp_path / "memory", model, texts))
    cache, question = DRTCache(model.config, memory=memory), random_tokens(model.config, 1, 40, 9)
    model(question[:, :30], past_key_values=cache)
    save_cache(cache, tmp_path / "stream")
    expected = model(question[:, 30:34], past_key_values=cache).logits
    with pytest.raises(ValueError, match="made on top of another memory"):
        load_cache(tmp_path / "stream", model.config)
    write(tmp_path / "memory", model, texts_of(model, [25], seed=50))
    grown = open_memory(tmp_path / "memory")
    loaded = load_cache(tmp_path / "stream", model.config, memory=grown)
    # until the next landmark asks, nothing of what was added is read
    found = model(question[:, 30:31], past_key_values=loaded).logits
    torch.testing.assert_close(found, expected[:, :1], **EXACT)


def test_a_saved_stream_goes_on_without_what_was_deleted_since(model, tmp_path):
    folder = write(tmp_path / "memory", model, texts_of(model, [33, 61, 12]))
    cache = DRTCache(model.config, memory=open_memory(folder))
    question = random_tokens(model.config, 1, 40, 9)
    model(question[:, :30], past_key_values=cache)
    save_cache(cache, tmp_path / "stream")
    served = [state.tensors() for state in cache.last_retrievals]
    chosen = torch.cat([held["indices"].flatten() for held in served])
    shared = chosen[(chosen >= 0) & (chosen < cache.memory.shared.num_chunks)]
    documents = open_memory(folder).documents
    gone = documents.of_chunk(int(shared[0])).number
    delete_documents(folder, [gone])
    memory = open_memory(folder)
    loaded = load_cache(tmp_path / "stream", model.config, memory=memory)
    first, end = documents.before[[gone, gone + 1], 0]
    for before, state in zip(served, loaded.last_retrievals, strict=True):
        indices, weights = state.tensors()["indices"], state.tensors()["weights"]
        is_gone = (before["indices"] >= first) & (before["indices"] < end)
        assert torch.equal(indices, before["indices"].masked_fill(is_gone, -1))
        left = before["weights"].masked_fill(is_gone, 0)
        torch.testing.assert_close(weights, left / left.sum(-1, keepdim=True).clamp_min(1e-30))
    assert model(question[:, 30:], past_key_values=loaded).logits.isfinite().all()


def test_a_memory_of_other_weights_or_sizes_is_refused_before_it_answers(model, tmp_path):
    memory = open_memory(write(tmp_path, model, texts_of(model, [33])))
    other = random_model(model.config, seed=1)
    cache, ids = DRTCache(model.config, memory=memory), random_tokens(model.config, 1, 4)
    with pytest.raises(ValueError, match="was made by other weights"):
        other(ids, past_key_values=cache)
    groups = {"num_retrieval_groups": 2, "num_upper_layers": 4, "num_lower_layers": 2}
    with pytest.raises(ValueError, match="a model with chunk_size = 6, this one has 9"):
        DRTCache(random_config(3, chunk_size=9, **groups), memory=memory)


def test_a_memory_in_half_precision_serves_a_model_in_single(model, tmp_path):
    half = copy.deepcopy(model).to(torch.bfloat16)
    write(tmp_path, half, texts_of(model, [33, 61]))
    single = copy.deepcopy(half).float()
    memory, question = open_memory(tmp_path), random_tokens(model.config, 1, 40, seed=9)
    found = ask(single, DRTCache(model.config, memory=memory), question)
    assert found.dtype == torch.float32 and found.isfinite().all()


@pytest.mark.parametrize("method", ["off", "random"])
def test_retrieval_that_is_off_or_random_does_what_it_says_on_a_memory(method, tmp_path):
    sizes = {"chunk_size": 6, "window_size": 7, "retrieval_top_k": 40}
    model = random_model(random_config(3, **sizes, retrieval_method=method))
    memory = open_memory(write(tmp_path, model, texts_of(model, [33, 61])))
    cache = DRTCache(model.config, memory=memory)
    ids = random_tokens(model.config, 1, 20)
    selection = model(ids, past_key_values=cache, output_retrieval=True).retrieval[0]
    if method == "off":
        assert (selection.indices == -1).all()
    else:
        for c, chosen in enumerate(selection.indices[0]):
            assert sorted(chosen[chosen >= 0].tolist()) == list(range(memory.num_chunks + c))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tier", TIERS)
def test_a_memory_is_read_on_a_gpu_in_any_mode(model, tier, tmp_path):
    write(tmp_path, model, texts_of(model, [33, 61]), part_bytes=1)
    question = random_tokens(model.config, 1, 40, seed=9)
    expected = ask(model, DRTCache(model.config, memory=open_memory(tmp_path, tier)), question)
    there = copy.deepcopy(model).cuda()
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            memory = open_memory(tmp_path, tier)
            found = ask(there, DRTCache(there.config, memory=memory), question.cuda())
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0.3 if "8" in tier else 1e-9)
