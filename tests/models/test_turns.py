"""Turn after turn on one cache: every token is read, once, and padding never."""

import copy
import threading

import pytest
import torch

from gcattn import DRTCache
from gcattn.chunking import prompt_breaks
from gcattn.testing import never_pads, random_config, random_model, random_tokens

GREEDY = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 60}


@pytest.fixture(scope="module")
def model():
    sizes = {"chunk_size": 6, "num_retrieval_groups": 2, "num_upper_layers": 2, "window_size": 7}
    return never_pads(random_model(random_config(3, num_lower_layers=1, **sizes)))


def read(model, ids):
    cache = DRTCache(model.config)
    with torch.no_grad():
        model(ids, past_key_values=cache, logits_to_keep=1)
    return cache


@pytest.mark.parametrize("past", [3, 100, 150])
@pytest.mark.parametrize("which", ["some", pytest.param("every", marks=pytest.mark.slow)])
def test_a_question_of_any_length_is_read_whole_in_either_form(model, past, which):
    # shorter than the past, as long, longer, and around the ends of chunks
    some = sorted({1, 2, 3, 4, 50, 51, past - 1, past, past + 1, 200})
    lengths = some if which == "some" else range(1, 201)
    document = random_tokens(model.config, 1, past)
    cache = read(model, document)
    for length in lengths:
        question = random_tokens(model.config, 1, length, seed=length)
        whole = torch.cat([document, question], dim=1)
        alone, full = copy.deepcopy(cache), copy.deepcopy(cache)
        new = model.generate(question, cache=alone, **(GREEDY | {"max_new_tokens": 2}))
        expected = model.generate(whole, cache=full, **(GREEDY | {"max_new_tokens": 2}))
        assert torch.equal(new[:, length:], expected[:, past + length :]), length
        assert torch.equal(alone.log.ids[:, :-1], whole.int()), length
        assert torch.equal(full.log.ids, alone.log.ids), length


@pytest.mark.parametrize("length", [1, 2, 9, 10, 30, 149, 150, 151])
def test_a_question_alone_gives_the_logits_of_reading_it_with_forward(model, length):
    cache, question = (
        read(model, random_tokens(model.config, 2, 150)),
        random_tokens(model.config, 2, length, seed=length),
    )
    mask = torch.ones_like(question)
    mask[1, : length // 2] = 0  # rows of unequal length
    fork = copy.deepcopy(cache)
    output = model.generate(
        question,
        cache=cache,
        attention_mask=mask,
        output_logits=True,
        return_dict_in_generate=True,
        **GREEDY,
    )
    with torch.no_grad():
        breaks = prompt_breaks(mask.bool())
        expected = model(question, past_key_values=fork, attention_mask=mask, chunk_breaks=breaks)
    torch.testing.assert_close(output.logits[0], expected.logits[:, -1].float())


def test_a_mask_over_everything_says_that_the_prompt_is_new(model):
    document = random_tokens(model.config, 1, 9)
    cache = read(model, document)
    again = torch.cat([document, document], dim=1)  # begins with all that was read
    model.generate(again, cache=cache, attention_mask=torch.ones(1, 27), **GREEDY)
    assert torch.equal(cache.log.ids[:, :27], torch.cat([document, again], dim=1).int())


def test_a_prompt_that_almost_begins_with_what_was_read_is_refused(model):
    document = random_tokens(model.config, 1, 40)
    cache, changed = read(model, document), torch.cat([document, document], dim=1)
    changed[0, 33] = (changed[0, 33] + 1) % 60
    with pytest.raises(ValueError, match="differs from them at token 33"):
        model.generate(changed, cache=cache, **GREEDY)
    with pytest.raises(ValueError, match="attention_mask must have as many columns"):
        model.generate(document, cache=cache, attention_mask=torch.ones(1, 41), **GREEDY)
    assert cache.get_seq_length() == 40


def test_turns_of_new_tokens_alone_are_those_of_the_whole_prompt(model):
    caches = DRTCache(model.config), DRTCache(model.config)
    whole = new = random_tokens(model.config, 2, 17)
    for turn in range(4):
        whole = model.generate(whole, cache=caches[0], **GREEDY)
        out = model.generate(new, cache=caches[1], **GREEDY)
        assert torch.equal(out[:, new.shape[1] :], whole[:, -6:])
        assert torch.equal(caches[0].log.ids, caches[1].log.ids)
        new = random_tokens(model.config, 2, (1, 9, 10, 30)[turn], seed=turn)
        whole = torch.cat([whole, new], dim=1)


def ending_ids(model, ids, mask):
    """Yield lists of ids that may end rows at different steps."""
    out = model.generate(ids, attention_mask=mask, **(GREEDY | {"max_new_tokens": 14}))
    first, second = out[:, ids.shape[1] :].tolist()
    yield from ([first[2], second[9]], [first[9], second[2]], [first[1], second[5]])
    yield from (list(range(start, start + 9)) for start in range(0, 50, 5))


def after_turn(model, row, num_prompt):
    """Return a cache that has read a row alone: its prompt, then what was generated but the last.

    `row` holds the prompt and what was generated, without padding.
    """
    prompt, generated = row[:num_prompt][None], row[num_prompt:-1][None]
    cache = DRTCache(model.config)
    with torch.no_grad():
        breaks = prompt_breaks(torch.ones_like(prompt).bool())
        model(prompt, past_key_values=cache, chunk_breaks=breaks)
        if generated.shape[1]:
            model(generated, past_key_values=cache)
    cache.log.note_generated(row[-1:])
    return cache


MODES = [
    {},
    {"do_sample": True, "top_k": 8},
    {"num_beams": 3},
    {"num_beams": 2, "num_return_sequences": 2},
    {"do_sample": True, "num_return_sequences": 2},
]


# the prompt as a whole or its new tokens alone: either with some of the modes
FORMS = [
    pytest.param(mode, form, marks=pytest.mark.slow if (form == "new") == (i in (0, 2)) else [])
    for i, mode in enumerate(MODES)
    for form in ("whole", "new")
]


@pytest.mark.parametrize(("mode", "form"), FORMS, ids=str)
@pytest.mark.parametrize(
    "num_question", [9, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4, 10, 31))]
)
def test_rows_that_end_before_others_go_on_as_if_alone(model, mode, num_question, form):
    lengths, width = (20, 13), 20
    ids = random_tokens(model.config, 2, width)
    mask = torch.ones_like(ids)
    mask[1, : width - lengths[1]] = 0
    for ends in ending_ids(model, ids, mask):
        cache = DRTCache(model.config)
        torch.manual_seed(0)
        kwargs = GREEDY | mode | {"max_new_tokens": 14, "eos_token_id": ends}
        out = model.generate(ids, attention_mask=mask, cache=cache, **kwargs)
        ended = torch.isin(out[:, width:], torch.tensor(ends))
        valid = ended.cumsum(1) - ended.long() == 0
        if not valid.all() and valid[:, 1:].any():
            break  # some row ended before another, and not all at once
    else:
        pytest.fail("no list of ids ended one row before another")
    copies = len(out) // 2
    question = random_tokens(model.config, len(out), num_question, seed=7)
    past = torch.cat([mask.repeat_interleave(copies, 0).bool(), valid], dim=1)
    asked = torch.ones_like(question).bool()
    if form == "whole":
        prompt, seen = torch.cat([out, question], dim=1), torch.cat([past, asked], dim=1)
    else:
        prompt = question
        seen = torch.cat([past[:, : cache.get_seq_length()], asked], dim=1)
    answer = model.generate(prompt, attention_mask=seen.long(), cache=cache, **GREEDY)
    for row in range(len(out)):
        num_prompt = lengths[row // copies]
        alone = after_turn(model, out[row, past[row]], num_prompt)
        whole = torch.cat([out[row, past[row]], question[row]])[None]
        expected = model.generate(whole, cache=alone, **GREEDY)
        assert torch.equal(answer[row, prompt.shape[1] :], expected[0, whole.shape[1] :]), row


def test_a_row_that_ended_early_is_read_like_the_same_row_generated_alone(model):
    ids = random_tokens(model.config, 2, 20)
    for ends in ending_ids(model, ids, None):
        kwargs = GREEDY | {"max_new_tokens": 14, "eos_token_id": ends}
        cache = DRTCache(model.config)
        out = model.generate(ids, cache=cache, **kwargs)
        if (out[:, -1] == 60).any():
            break
    question = random_tokens(model.config, 2, 11, seed=7)
    answer = model.generate(question, cache=cache, **GREEDY)
    for row in range(2):
        alone = DRTCache(model.config)
        first = model.generate(ids[row : row + 1], cache=alone, **kwargs)
        assert torch.equal(first[0], out[row, : first.shape[1]])
        expected = model.generate(question[row : row + 1], cache=alone, **GREEDY)
        assert torch.equal(answer[row], expected[0])


def test_one_cached_row_serves_beams_and_several_sequences(model):
    document, question = random_tokens(model.config, 1, 50), random_tokens(model.config, 1, 9, 1)
    cache = read(model, document)
    for kwargs in ({"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}):
        fork = copy.deepcopy(cache)
        found = model.generate(question, cache=fork, **GREEDY, **kwargs)
        whole = torch.cat([document, question], dim=1)
        breaks = torch.zeros_like(whole).bool()
        breaks[:, 50:] = prompt_breaks(torch.ones_like(question).bool())
        expected = model.generate(whole, chunk_breaks=breaks, **GREEDY, **kwargs)
        assert torch.equal(found[:, 9:], expected[:, 59:])
        assert fork.num_rows == len(found)
    torch.manual_seed(0)
    sampled = model.generate(
        question, cache=cache, **(GREEDY | {"do_sample": True, "num_return_sequences": 4})
    )
    assert len(sampled) == cache.num_rows == 4


def test_a_cache_that_does_not_fit_is_refused_in_one_line(model):
    cache, ids = read(model, random_tokens(model.config, 1, 9)), random_tokens(model.config, 3, 4)
    with pytest.raises(ValueError, match=r"batch_repeat_interleave\(3\)"):
        model.generate(ids, cache=cache, **GREEDY)
    with pytest.raises(ValueError, match="The cache is of batch size 1, the call of 3; repeat"):
        model(ids, past_key_values=cache)
    other = copy.deepcopy(model.config)
    other.chunk_size = 7
    for foreign in (DRTCache(other), read(random_model(other), ids)):
        with pytest.raises(ValueError, match="made for a model with chunk_size = 7, this one has"):
            model.generate(ids, cache=foreign, **GREEDY)


@pytest.mark.parametrize("size", [0, -3])
def test_a_prefill_chunk_size_below_1_is_refused(model, size):
    with pytest.raises(ValueError, match=f"prefill_chunk_size must be at least 1, got {size}"):
        model.generate(random_tokens(model.config, 1, 9), prefill_chunk_size=size, **GREEDY)


@pytest.mark.parametrize("width", [3, 5, 8, 14])
def test_a_mask_of_a_wrong_width_is_refused(model, width):
    ids = random_tokens(model.config, 1, 4)
    for cache in (None, read(model, random_tokens(model.config, 1, 9))):
        with pytest.raises(ValueError, match="attention_mask must have shape"):
            model(ids, attention_mask=torch.ones(1, width), past_key_values=cache)


def test_two_threads_on_one_cache_are_told_apart(model):
    cache, ids = read(model, random_tokens(model.config, 1, 9)), random_tokens(model.config, 1, 4)
    refused, inside = [], threading.Event()

    def other():
        try:
            model(ids, past_key_values=cache)
        except ValueError as error:
            refused.append(str(error))
        inside.set()

    def callback(ids, scores):
        if not inside.is_set():
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        return scores

    model.generate(ids, cache=cache, logits_processor=[callback], **GREEDY)
    assert len(refused) == 1 and "Another thread is in a call on this cache" in refused[0]
    with torch.no_grad():
        model(ids, past_key_values=cache)  # it is free again


def test_generate_returns_what_was_retrieved_and_the_cache_leads_to_its_text(model):
    ids, cache = random_tokens(model.config, 1, 50), DRTCache(model.config)
    output = model.generate(
        ids, cache=cache, output_retrieval=True, return_dict_in_generate=True, **GREEDY
    )
    assert len(output.retrieval) == 6  # a call for each new token, the first one's the prompt
    assert len(output.retrieval[0]) == 2  # groups
    best = int(output.retrieval[0][0].indices[0, -1, 0])
    first, end = cache.chunk_span(0, best)
    assert torch.equal(cache.chunk_token_ids(0, best), ids[0, first:end])
    assert 0 < end - first <= 5
    with pytest.raises(IndexError, match="Row 0 has no chunk 99"):
        cache.chunk_span(0, 99)
    with pytest.raises(ValueError, match="needs return_dict_in_generate=True"):
        model.generate(ids, output_retrieval=True, **GREEDY)


def test_the_chunks_of_a_row_are_its_text_whatever_the_calls_and_the_padding(model):
    ids = random_tokens(model.config, 2, 60)
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    mask[1, 30:33] = 0
    cache = DRTCache(model.config)
    with torch.no_grad():
        for tokens in (slice(0, 21), slice(21, 22), slice(22, 60)):
            model(ids[:, tokens], attention_mask=mask[:, tokens], past_key_values=cache)
    for row, length in enumerate((60, 50)):
        chunks = [cache.chunk_token_ids(row, n) for n in range(length // 5)]
        assert torch.equal(torch.cat(chunks), ids[row, mask[row].bool()])
    assert cache.chunk_span(1, 4) == (27, 35)
