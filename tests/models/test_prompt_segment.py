"""A segment of a prompt that is replayed as graphs gives what a planned one gives."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from test_captured_step import CHANGES

from gcattn import DRTCache, MemoryWriter, open_memory
from gcattn.models import DRTForCausalLM, captured_step, drt_128m, prompt_segment
from gcattn.nn.retriever import Retrieval
from gcattn.testing import random_config, random_model, random_tokens

EXACT = {"rtol": 0, "atol": 1e-10}
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def planned(monkeypatch):
    """Return what calls a function with every call planned."""

    def call(function, *args, **options):
        with monkeypatch.context() as patched:
            patched.setattr(prompt_segment, "DEVICES", ())
            return function(*args, **options)

    return call


def small_model(seed=5, **overrides):
    return random_model(random_config(seed, **({"chunk_size": 7, "window_size": 9} | overrides)))


def read(model, cache, ids, sizes, **options):
    return [
        model(segment, past_key_values=cache, **options).logits
        for segment in ids[:, : sum(sizes)].split(sizes, dim=1)
    ]


def assert_same(found, expected):
    """Assert that two caches hold the same."""
    for name, state in expected.states().items():
        held = found.states()[name].tensors()
        assert held.keys() == state.tensors().keys(), name
        for part, x in state.tensors().items():
            torch.testing.assert_close(held[part], x, **EXACT, msg=f"{name}.{part}")


def captured(model):
    return list(model.model.segment_graphs._captured.values())


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("seed", SEEDS)
def test_replayed_segments_equal_planned_ones(seed, keep, graphs, planned):
    model = small_model(seed) if seed < 4 else random_model(random_config(seed))
    whole = model.config.chunk_size - 1
    # the beginning, two shapes of what follows, and a chunk that stays open
    sizes = [3 * whole] * 4 + [2 * whole + 1]
    ids = random_tokens(model.config, 2, sum(sizes) + 3, seed)
    for _ in range(2):
        fast, plain = DRTCache(model.config), DRTCache(model.config)
        found = read(model, fast, ids, sizes, logits_to_keep=keep)
        expected = planned(read, model, plain, ids, sizes, logits_to_keep=keep)
        torch.testing.assert_close(found, expected, **EXACT)
        assert_same(fast, plain)
    assert len(captured(model)) >= 3  # or more, until windows are full
    sizes = [1, 2]  # of a chunk that is open
    found = read(model, fast, ids[:, -3:], sizes)
    expected = planned(read, model, plain, ids[:, -3:], sizes)
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("tier", ["host", "recompute", "disk"])
def test_chunks_may_be_in_any_tier(tier, graphs, planned):
    model = small_model()
    ids = random_tokens(model.config, 1, 60)
    for _ in range(2):
        fast, plain = DRTCache(model.config, tier), DRTCache(model.config, tier)
        found = read(model, fast, ids, [18, 18, 18, 6])
        torch.testing.assert_close(found, planned(read, model, plain, ids, [18, 18, 18, 6]))
    assert captured(model)


def test_chunks_of_a_shared_memory_are_read_too(tmp_path, graphs, planned):
    model = small_model(3)
    ids = random_tokens(model.config, 1, 60)
    with MemoryWriter(tmp_path, model) as writer:
        got = model.model.encode_chunks(ids)
        writer.begin("text")
        writer.append(got.landmarks[0], got.keys[0], got.values[0], got.lengths[0], ids[0])
        writer.end()
    memory = open_memory(tmp_path, "host")
    ids = random_tokens(model.config, 2, 48, 1)
    for _ in range(2):
        fast, plain = (DRTCache(model.config, memory=memory) for _ in range(2))
        found = read(model, fast, ids, [12] * 4)
        torch.testing.assert_close(found, planned(read, model, plain, ids, [12] * 4), **EXACT)
        assert_same(fast, plain)
    assert captured(model)


def test_generate_reads_prompts_of_one_length_with_one_graph(graphs, planned):
    model = small_model()
    prompts = [random_tokens(model.config, 2, 50, seed) for seed in range(3)]

    def generate():
        options = {"do_sample": False, "max_new_tokens": 8, "pad_token_id": 60}
        return [model.generate(prompt, **options) for prompt in prompts]

    found = generate()
    assert len(captured(model)) == 1
    assert all(torch.equal(*pair) for pair in zip(found, planned(generate), strict=True))


def test_a_shape_that_comes_once_is_planned(graphs):
    model = small_model()
    read(model, DRTCache(model.config), random_tokens(model.config, 1, 12), [12])
    assert not captured(model) and not graphs.replays


def test_only_the_last_shapes_keep_their_graphs(graphs):
    model = small_model()
    for size in range(6, 12):
        for _ in range(2):
            read(model, DRTCache(model.config), random_tokens(model.config, 1, size), [size])
    assert len(captured(model)) == prompt_segment.MOST_SEGMENTS


def test_a_segment_that_reads_more_chunks_than_fit_is_planned(graphs, monkeypatch):
    monkeypatch.setattr(prompt_segment, "MOST_RETRIEVED_BYTES", 1)
    model = small_model()
    for _ in range(3):
        read(model, DRTCache(model.config), random_tokens(model.config, 1, 12), [12])
    assert not captured(model)


def test_shapes_in_turn_are_captured_more_and_more_rarely():
    held, captures = prompt_segment.SegmentGraphs(), []

    def capture():
        captures.append(1)
        return SimpleNamespace(num_tokens=1)

    shapes = range(prompt_segment.MOST_SEGMENTS + 2)
    for _ in range(64):
        for shape in shapes:
            held.captured(shape, 1, capture)
    assert len(shapes) < len(captures) <= 6 * len(shapes)
    assert any(held.captured(0, 1, capture) for _ in range(64))  # and one that comes again is


def test_few_tokens_are_kept_in_graphs(graphs, monkeypatch):
    monkeypatch.setattr(prompt_segment, "MOST_TOKENS_KEPT", 20)
    model = small_model()
    for size in (6, 12, 7, 18):
        for _ in range(2):
            read(model, DRTCache(model.config), random_tokens(model.config, 1, size), [size])
        assert captured(model)[-1].num_tokens == size
        assert sum(segment.num_tokens for segment in captured(model)) <= 20


def test_a_captured_segment_keeps_no_cache_and_no_result_in_its_own_tensors(graphs):
    model = small_model()
    first = random_tokens(model.config, 1, 12)
    caches = [DRTCache(model.config) for _ in range(4)]
    found = [read(model, cache, first, [12]) for cache in caches[:3]]
    (segment,) = captured(model)
    assert segment._stream._chunks.cache is None
    kept = copy.deepcopy(caches[2])
    read(model, caches[3], random_tokens(model.config, 1, 12, 1), [12])
    assert_same(caches[2], kept)
    torch.testing.assert_close(found[2], found[0], **EXACT)


@pytest.mark.parametrize(
    "irregular", ["padding", "documents", "phases", "gradients", "noise", "retrieval", "states"]
)
def test_what_has_no_common_shape_is_planned(irregular, graphs):
    model = small_model()
    ids = random_tokens(model.config, 2, 30)
    options = {
        "padding": {"attention_mask": torch.ones(2, 12).index_fill(1, torch.tensor([0]), 0)},
        "documents": {"document_ids": (torch.arange(12) > 5).long().expand(2, -1)},
        "noise": {"retrieval": Retrieval(2, temperature_spread=2.0)},
        "retrieval": {"output_retrieval": True},
        "states": {"output_hidden_states": True},
    }.get(irregular, {})
    for _ in range(3):
        cache = DRTCache(model.config)
        if irregular == "phases":
            mask = torch.tensor([[1, 1, 1], [0, 1, 1]])
            model(ids[:, :3], past_key_values=cache, attention_mask=mask)
        with torch.set_grad_enabled(irregular == "gradients"):
            model(ids[:, :12], past_key_values=cache, use_cache=True, **options)
    assert not captured(model)


def test_calls_of_another_top_k_have_graphs_of_their_own(graphs, planned):
    model = small_model(retrieval_top_k=3)
    ids = random_tokens(model.config, 1, 36)

    def read_all(cache):
        return [
            model(part, past_key_values=cache, retrieval=Retrieval(top_k)).logits
            for part, top_k in zip(ids.split(12, dim=1), (3, 5, 2), strict=True)
        ]

    for _ in range(3):
        found = read_all(DRTCache(model.config))
        expected = planned(read_all, DRTCache(model.config))
        torch.testing.assert_close(found, expected, **EXACT)
    assert len(captured(model)) == 3


SETTINGS = {
    "retrieval": lambda model: setattr(model.model.retrieval_groups[0].retriever, "is_off", True),
    "window": lambda model: setattr(model.model.lower_layers[0].self_attention, "window_size", 2),
    "configuration": lambda model: setattr(model.config, "rope_theta", 10.0),
}


@pytest.mark.parametrize("change", SETTINGS)
def test_graphs_are_dropped_when_a_setting_has_changed(change, graphs, planned):
    model = small_model()
    ids = random_tokens(model.config, 1, 36)
    for _ in range(3):
        before = read(model, DRTCache(model.config), ids, [36])
    SETTINGS[change](model)
    fast, plain = DRTCache(model.config), DRTCache(model.config)
    found, expected = read(model, fast, ids, [36]), planned(read, model, plain, ids, [36])
    torch.testing.assert_close(found, expected, **EXACT)
    assert_same(fast, plain)
    assert not captured(model) and not torch.allclose(found[0], before[0])


@pytest.mark.parametrize("change", CHANGES)
def test_graphs_are_dropped_when_the_model_has_changed(change, graphs, planned):
    model = small_model()
    ids = random_tokens(model.config, 1, 12)
    for _ in range(3):
        read(model, DRTCache(model.config), ids, [12])
    assert captured(model)
    handle = CHANGES[change](model.model.lower_layers[0].mlp.down_proj)
    graphs.is_stale = True
    try:
        fast, plain = DRTCache(model.config), DRTCache(model.config)
        found, expected = read(model, fast, ids, [12]), planned(read, model, plain, ids, [12])
        torch.testing.assert_close(found, expected, **EXACT)
        assert_same(fast, plain)
        assert not captured(model)
    finally:
        if change == "hook for all":
            handle.remove()


def test_a_failing_capture_changes_nothing(graphs, planned, monkeypatch):
    def fail(compute, undo, work, graphs):
        with work.taken_by(lambda _: None):
            compute()
        raise RuntimeError("no memory")

    monkeypatch.setattr(captured_step, "record", fail)
    model = small_model()
    ids = random_tokens(model.config, 1, 24)
    for _ in range(4):
        fast, plain = DRTCache(model.config), DRTCache(model.config)
        found = read(model, fast, ids, [12, 12])
        torch.testing.assert_close(found, planned(read, model, plain, ids, [12, 12]), **EXACT)
        assert_same(fast, plain)
    assert not captured(model)


def test_a_failing_replay_leaves_the_cache_as_it_was(graphs, monkeypatch):
    model = small_model()
    ids = random_tokens(model.config, 1, 36)
    for _ in range(2):
        cache = DRTCache(model.config)
        read(model, cache, ids, [12, 12])
    before = copy.deepcopy(cache)
    replayed = graphs.replays
    with monkeypatch.context() as patched:
        patched.setattr(
            type(cache.memory), "fetch", lambda *args: (_ for _ in ()).throw(OSError("disk"))
        )
        with pytest.raises(OSError, match="disk"):
            read(model, cache, ids[:, 24:], [12])
    assert graphs.replays > replayed
    assert_same(cache, before)
    assert cache.num_tokens == 24
    torch.testing.assert_close(
        read(model, cache, ids[:, 24:], [12]), read(model, before, ids[:, 24:], [12]), **EXACT
    )


@pytest.mark.parametrize("modes", [(True, False), (False, True)])
def test_a_segment_captured_in_one_mode_is_replayed_in_another(modes, graphs):
    model = small_model()
    ids = random_tokens(model.config, 1, 24)
    results = []
    for mode in modes:
        for _ in range(3):
            cache = DRTCache(model.config)
            with torch.inference_mode(mode):
                results.append(read(model, cache, ids, [12, 12]))
            # and goes on in the other one
            with torch.inference_mode(not mode):
                read(model, cache, ids, [12])
    for found in results[1:]:
        torch.testing.assert_close(found, results[0], **EXACT)


def test_a_call_while_another_thread_reads_is_planned(graphs):
    model = small_model()
    ids = random_tokens(model.config, 1, 12)
    for _ in range(2):
        expected = read(model, DRTCache(model.config), ids, [12])
    replayed = graphs.replays
    with model.model.segment_graphs.lock:
        found = read(model, DRTCache(model.config), ids, [12])
    assert graphs.replays == replayed
    torch.testing.assert_close(found, expected, **EXACT)


def test_a_copy_of_a_model_has_no_graphs(graphs):
    model = small_model()
    for _ in range(2):
        read(model, DRTCache(model.config), random_tokens(model.config, 1, 12), [12])
    assert captured(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not captured(other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tier", ["device", "host"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("keep", "mixing"), [(0, "separate"), (1, "joint")])
def test_on_a_gpu_replayed_segments_equal_planned_ones(dtype, tier, keep, mixing, planned):
    config = drt_128m(
        vocab_size=500,
        num_retrieval_groups=2,
        cross_attention_interval=1,
        chunk_mixing=mixing,
    )
    model = DRTForCausalLM(config).eval().to("cuda", dtype)
    sizes = [630, 630, 630, 700]
    for prompt in range(6):
        ids = random_tokens(config, 1 + prompt // 3, sum(sizes), prompt).cuda()
        fast, plain = DRTCache(config, tier), DRTCache(config, tier)
        found = read(model, fast, ids, sizes, logits_to_keep=keep)
        expected = planned(read, model, plain, ids, sizes, logits_to_keep=keep)
        # the same kernels on the same values
        close = {"rtol": 0, "atol": 0.05 if dtype == torch.bfloat16 else 1e-4}
        torch.testing.assert_close(found, expected, **close)
        for name in ("lower", "upper", "chunk_tail"):
            for part, x in plain.states()[name].tensors().items():
                held = fast.states()[name].tensors()[part]
                torch.testing.assert_close(held, x, **close, msg=f"{name}.{part}")
    assert len(captured(model)) == prompt_segment.MOST_SEGMENTS
