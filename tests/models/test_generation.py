"""`generate` over the chunk cache equals generation without any cache."""

import collections
import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TextIteratorStreamer

from gcattn import DRTCache
from gcattn.chunking import prompt_breaks
from gcattn.models.cache_name import CACHE_NAME
from gcattn.testing import never_pads, random_config, random_model, random_tokens

GREEDY = {"do_sample": False, "max_new_tokens": 13, "pad_token_id": 60}


@pytest.fixture(scope="module")
def model():
    return never_pads(
        random_model(random_config(3, chunk_size=6, num_retrieval_groups=2, num_upper_layers=4))
    )


@pytest.fixture(scope="module", params=["next_chunk", "from_landmark"])
def either(request):
    return never_pads(random_model(random_config(8, chunk_size=7, retrieval_serves=request.param)))


def continue_greedily(model, ids, num_tokens, **kwargs):
    """Generate by running everything again for every token."""
    breaks = kwargs.get("chunk_breaks")
    for _ in range(num_tokens):
        if breaks is not None:
            kwargs["chunk_breaks"] = torch.nn.functional.pad(
                breaks, (0, ids.shape[1] - breaks.shape[1])
            )
        with torch.no_grad():
            logits = model(ids, use_cache=False, **kwargs).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    return ids


@pytest.mark.parametrize(
    "length", [1, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 6, 40)), 7, 64]
)
def test_default_equals_full_forward_with_the_prompts_breaks(either, length):
    ids = random_tokens(either.config, 2, length)
    breaks = prompt_breaks(torch.ones_like(ids, dtype=torch.bool))
    expected = continue_greedily(either, ids, 13, chunk_breaks=breaks)
    assert torch.equal(either.generate(ids, **GREEDY), expected)


@pytest.mark.parametrize("length", [1, 6, 40, 64])
def test_open_prompt_equals_full_forward_on_the_fixed_grid(either, length):
    ids = random_tokens(either.config, 2, length)
    expected = continue_greedily(either, ids, 13)
    assert torch.equal(either.generate(ids, close_prompt=False, **GREEDY), expected)


def test_first_generated_token_is_served_by_what_the_prompt_retrieved(model):
    ids = random_tokens(model.config, 1, 33)  # three tokens into a chunk
    cache = DRTCache(model.config)
    model.generate(ids, cache=cache, **(GREEDY | {"max_new_tokens": 1}))
    assert cache.position.state.open_length.tolist() == [1]
    assert cache.memory.num_chunks.tolist() == [7]  # six full chunks and one of two tokens
    assert cache.last_retrievals[0].tensors()["indices"].max() >= 0


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_goes_by_either_name(model, name):
    cache = DRTCache(model.config)
    ids = random_tokens(model.config, 1, 33)
    with torch.no_grad():
        output = model(ids, **{name: cache})
    assert getattr(output, CACHE_NAME) is output.past_key_values is cache
    more = torch.cat([ids, random_tokens(model.config, 1, 9, seed=1)], dim=1)
    found = model.generate(more, **{name: copy.deepcopy(cache)}, **GREEDY)
    assert torch.equal(found, model.generate(more, cache=cache, **GREEDY))
    assert cache.get_seq_length() == found.shape[1] - 1
    with pytest.raises(ValueError, match="two names of one argument"):
        model(ids, cache=cache, past_key_values=cache)
    with pytest.raises(ValueError, match="DRTCache, got tuple"):
        model.generate(ids, **{name: ()}, **GREEDY)


def test_scores_of_the_default_equal_the_logits_of_the_full_forward(model):
    ids = random_tokens(model.config, 1, 33)
    output = model.generate(
        ids, return_dict_in_generate=True, output_logits=True, **(GREEDY | {"max_new_tokens": 8})
    )
    breaks = torch.nn.functional.pad(prompt_breaks(torch.ones_like(ids).bool()), (0, 8))
    with torch.no_grad():
        full = model(output.sequences, chunk_breaks=breaks).logits[:, 32:-1]
    torch.testing.assert_close(torch.stack(output.logits, dim=1), full.float())


def test_cache_changes_nothing_for_greedy_sampling_and_beam_search(model):
    ids = random_tokens(model.config, 2, 19)
    for kwargs in (
        {},
        {"do_sample": True, "top_k": 5},
        {"num_beams": 3},
        {"num_return_sequences": 2, "num_beams": 2},
    ):
        results = []
        for use_cache in (True, False):
            torch.manual_seed(0)
            # more than a chunk
            few = GREEDY | {"max_new_tokens": 8} | kwargs
            results.append(model.generate(ids, use_cache=use_cache, **few))
        assert torch.equal(*results), kwargs


def test_host_memory_generates_the_same(model):
    ids = random_tokens(model.config, 2, 50)
    for beams in (1, 3):
        on_device, on_host = (
            model.generate(ids, cache=DRTCache(model.config, tier), num_beams=beams, **GREEDY)
            for tier in ("device", "host")
        )
        assert torch.equal(on_device, on_host)


def test_prompts_of_unequal_length_generate_as_if_alone(model):
    lengths = (20, 13, 1)
    ids = random_tokens(model.config, 3, 20)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, 20 - length :] = 1
    batched = model.generate(ids, attention_mask=mask, **GREEDY)[:, 20:]
    for row, length in enumerate(lengths):
        alone = model.generate(ids[row : row + 1, 20 - length :], **GREEDY)[:, length:]
        assert torch.equal(batched[row : row + 1], alone)


@pytest.mark.parametrize("chunk_size", [1, 4, 16])
def test_prefill_in_pieces_equals_prefill_at_once(model, chunk_size):
    ids = random_tokens(model.config, 2, 45)
    whole = model.generate(ids, **GREEDY)
    assert torch.equal(model.generate(ids, prefill_chunk_size=chunk_size, **GREEDY), whole)


def test_several_turns_continue_the_cache_without_reading_the_past_again(model):
    seen = []
    hook = model.model.embed_tokens.register_forward_hook(
        lambda _, args, __: seen.append(args[0].shape[1])
    )
    cache = DRTCache(model.config)
    ids = random_tokens(model.config, 1, 17)
    breaks = prompt_breaks(torch.ones_like(ids).bool())
    for turn in range(3):
        ids = model.generate(ids, cache=cache, **(GREEDY | {"max_new_tokens": 9}))
        # every token but the last one generated has been read exactly once
        assert sum(seen) == ids.shape[1] - 1 == cache.get_seq_length()
        breaks = torch.nn.functional.pad(breaks, (0, ids.shape[1] - breaks.shape[1]))
        ids = torch.cat([ids, random_tokens(model.config, 1, 8, seed=turn)], dim=1)
        breaks = torch.nn.functional.pad(breaks, (0, 8))
        breaks[:, -2] = True
    hook.remove()
    turn_by_turn = model.generate(ids, cache=cache, **GREEDY)
    assert torch.equal(turn_by_turn, continue_greedily(model, ids, 13, chunk_breaks=breaks))


def test_only_new_tokens_may_be_passed_with_a_cache(model):
    ids, more = random_tokens(model.config, 1, 30), random_tokens(model.config, 1, 9, seed=1)
    cache = DRTCache(model.config)
    with torch.no_grad():
        model(ids, past_key_values=cache)
    fork = copy.deepcopy(cache)
    whole = model.generate(torch.cat([ids, more], dim=1), cache=cache, **GREEDY)
    mask = torch.ones(1, 39).long()
    new_only = model.generate(more, cache=fork, attention_mask=mask, **GREEDY)
    assert torch.equal(whole[:, 30:], new_only)


def test_streaming_gives_the_generated_tokens_in_order(model):
    class Ids:
        def decode(self, ids, **kwargs):
            return "".join(f"{i} " for i in ids)

    ids = random_tokens(model.config, 1, 12)
    streamer = TextIteratorStreamer(Ids(), skip_prompt=True)
    output = model.generate(ids, streamer=streamer, **GREEDY)
    assert [int(x) for x in "".join(streamer).split()] == output[0, 12:].tolist()


def test_embeddings_may_replace_the_prompts_ids(model):
    ids = random_tokens(model.config, 2, 14)
    embeds = model.get_input_embeddings()(ids)
    new = model.generate(inputs_embeds=embeds, **GREEDY)
    assert torch.equal(new, model.generate(ids, **GREEDY)[:, 14:])


def test_caches_that_do_not_fit_are_refused(model):
    ids = random_tokens(model.config, 1, 5)
    with pytest.raises(ValueError, match="cache_implementation='static' does not fit a DRT"):
        model.generate(ids, cache_implementation="static", **GREEDY)
    with pytest.raises(ValueError, match="close_promt"):
        model.generate(ids, close_promt=True, **GREEDY)
    with pytest.raises(ValueError, match="can't give tokens back"):
        DRTCache(model.config).crop(-1)


class CountOperations(TorchDispatchMode):
    """Count calls of PyTorch's operations by name."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_a_layer_looks_nothing_up_while_a_token_is_decoded():
    counts = []
    for num_layers in (1, 1, 4):  # the first makes the plan that the others find
        model = random_model(random_config(5, chunk_size=8, num_lower_layers=num_layers))
        cache = DRTCache(model.config)
        with torch.no_grad():
            model(random_tokens(model.config, 1, 40), past_key_values=cache)
            with CountOperations() as counter:  # the first token of a chunk closes none
                model(random_tokens(model.config, 1, 1), past_key_values=cache)
        assert counter.counts["mm"] > 0
        counts.append(counter.counts["index"])
    assert counts[1] == counts[2]
