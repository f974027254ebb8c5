"""Training rows with needles: answerable, of one length, what the trainer reads."""

import pickle
from dataclasses import fields

import pytest
import torch
from needle_corpus import write_haystack
from needle_solver import find, solve

from gcattn.chunking import prompt_breaks
from gcattn.data import TokenShards
from gcattn.data.needle_tasks import TASK_NAMES, NeedlePlan, NeedleRows, NeedleVocabulary
from gcattn.models import DRTForCausalLM, drt_tiny

T = 1024


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return TokenShards(write_haystack(tmp_path_factory.mktemp("haystack") / "shards"))


@pytest.fixture(scope="module")
def words(tokenizer):
    return NeedleVocabulary(tokenizer, "train")


def runs(mask):
    """Return the [start, stop) of every run of ones."""
    edges = torch.diff(mask, prepend=torch.zeros(1, dtype=mask.dtype), append=mask.new_zeros(1))
    return list(
        zip(
            (edges == 1).nonzero().flatten().tolist(),
            (edges == -1).nonzero().flatten().tolist(),
            strict=True,
        )
    )


def needle_rows(shards, length, mixture, **options):
    """Rows by a plan whose knobs are among the options."""
    knobs = {field.name for field in fields(NeedlePlan)} & options.keys()
    plan = NeedlePlan(mixture=mixture, **{name: options.pop(name) for name in knobs})
    return NeedleRows(shards, length, plan, **options)


@pytest.mark.parametrize("library_rate", [0.0, 1.0])
def test_evidence_marks_needles_and_what_predicts_their_answers(shards, library_rate):
    options = {"include_evidence": True, "include_answer_mask": True, "exercises_per_row": 4}
    mixture = {"single": 1, "multi-key:3": 1}
    rows = needle_rows(shards, T, mixture, library_rate=library_rate, **options)
    asked = 0
    for index in range(12):
        row = rows[index]
        ids, marks = row["input_ids"], row["evidence"]
        assert torch.equal((marks < 0)[:-1], row["answer_mask"][1:].bool())
        for number in range(1, int(-marks.min()) + 1):
            said = ids[marks == number].tolist()
            answer = ids[(marks == -number).nonzero().flatten() + 1].tolist()
            assert any(said[i : i + len(answer)] == answer for i in range(len(said)))
            asked += 1
    assert asked > 24


def test_an_answer_of_several_values_has_as_many_needles(shards):
    options = {"include_evidence": True, "exercises_per_row": 1}
    rows = needle_rows(shards, T, {"multi-value:3": 1}, **options)
    for index in range(8):
        row = rows[index]
        ids, marks = row["input_ids"], row["evidence"]
        assert set(marks.tolist()) == {0, 1, -1}
        answer = ids[(marks == -1).nonzero().flatten() + 1].tolist()
        assert len({*answer} - {*ids[marks == 1].tolist()}) <= 2, "but for what joins them"


def test_near_questions_come_at_every_order_of_magnitude(shards, words):
    options = {"include_answer_mask": True, "exercises_per_row": 1}
    share = {}
    for near in (0.0, 1.0):
        rows = needle_rows(shards, T, {"single": 1}, near_question_rate=near, **options)
        distances = []
        for index in range(60):
            ids, answer = rows[index]["input_ids"].tolist(), rows[index]["answer_mask"]
            asked = runs(answer)[0][0]
            distances.append(asked - find(ids, words.phrases.secret_of))
        share[near] = sum(distance < 64 for distance in distances) / 60
        assert max(distances) > 200
    assert share[0.0] < 0.25 and share[1.0] > 0.4


@pytest.mark.parametrize(("near", "noisy"), [(0.0, 0.0), (1.0, 1.0)])
# the worded tasks are told in words of their own: test_worded_needles.py
@pytest.mark.parametrize(
    "name",
    [n for n in TASK_NAMES if not n.startswith(("worded", "people", "free", "cloze", "notes"))],
)
def test_every_answer_follows_from_the_row_before_it(name, near, noisy, shards, words):
    say = words.phrases
    openings = [say.what_is_final_secret_of, say.what_is_secret_of]
    openings += [say.what_are_secrets_of, say.which_variables_equal]
    rows = needle_rows(
        shards,
        T,
        {name: 1},
        include_answer_mask=True,
        exercises_per_row=3,
        near_question_rate=near,
        noisy_text_rate=noisy,
    )
    num_answers = 0
    for index in range(6):
        row = rows[index]
        ids = row["input_ids"].tolist()
        assert len(ids) == T
        for start, stop in runs(row["answer_mask"]):
            if name == "self-copy":
                opening = start - 16
            else:
                # the question begins at the last opening before its answer
                opening = max(
                    place
                    for words_ in openings
                    for place in range(max(start - 40, 0), start)
                    if find(ids[place : place + len(words_)], words_) == 0
                )
            found = solve(ids[:opening], ids[opening:start], words)
            assert found[: stop - start] == tuple(ids[start:stop])
            num_answers += 1
    assert num_answers >= 6


def test_a_row_follows_from_its_index(shards):
    def rows(**changes):
        options = {"seed": 1, "random_break_rate": 0.05, "text_loss_share": 0.5} | changes
        return needle_rows(shards, T, {"single": 2, "number": 1, "text": 1}, **options)

    first, second = rows()[41], rows()[41]
    assert first.keys() == {"input_ids", "labels", "chunk_breaks"}
    assert all(torch.equal(first[name], second[name]) for name in first)
    for other in (rows()[42], rows(seed=2)[41], rows(split="validation")[41]):
        assert not torch.equal(first["input_ids"], other["input_ids"])


def test_pieces_of_a_row_are_rows_of_their_length(shards):
    options = {"include_answer_mask": True, "exercises_per_row": 1, "seed": 3}
    rows = needle_rows(shards, T, {"single": 1}, **options)
    short = needle_rows(shards, T // 4, {"single": 1}, **options)
    row = rows[5, T // 4]
    for piece in range(4):
        for name, x in row.items():
            assert torch.equal(x.view(4, -1)[piece], short[4 * 5 + piece][name])
        assert row["answer_mask"].view(4, -1)[piece].sum() == 5
    assert torch.equal(rows[5, T]["input_ids"], rows[5]["input_ids"])
    with pytest.raises(ValueError, match="must divide sequence_length"):
        rows[0, 100]
    with pytest.raises(ValueError, match="lengthen the rows"):
        rows.check_length(30)


def test_rows_travel_to_the_processes_that_read_data(shards):
    rows = needle_rows(shards, T, {"single": 1, "number": 1, "self-copy": 1})
    copy = pickle.loads(pickle.dumps(rows))
    assert all(torch.equal(copy[i]["input_ids"], rows[i]["input_ids"]) for i in range(5))


def test_labels_are_the_text_and_all_answers_keep_theirs(shards):
    options = {"include_answer_mask": True, "exercises_per_row": 6}
    full = needle_rows(shards, T, {"multi-key": 1}, **options)[0]
    assert torch.equal(full["labels"], full["input_ids"])
    assert "chunk_breaks" not in full
    thin = needle_rows(shards, T, {"multi-key": 1}, text_loss_share=0.25, **options)[0]
    kept = thin["labels"] != -100
    assert torch.equal(thin["input_ids"], full["input_ids"])
    assert torch.equal(thin["labels"][kept], thin["input_ids"][kept])
    answers = thin["answer_mask"].bool()
    assert kept[answers].all()
    assert 0.15 < kept[~answers].float().mean() < 0.35


def test_needles_and_prompts_have_a_loss_share_of_their_own(shards):
    options = {"include_answer_mask": True, "exercises_per_row": 6, "noisy_text_rate": 1.0}
    spoiled = needle_rows(shards, T, {"multi-key": 1}, needle_loss_share=1, **options)[0]
    assert torch.equal(spoiled["labels"] != -100, spoiled["answer_mask"].bool())
    options["noisy_text_rate"] = 0.0
    row = needle_rows(shards, T, {"multi-key": 1}, needle_loss_share=0, **options)[0]
    text = needle_rows(shards, T, {"multi-key": 1}, text_loss_share=0, **options)[0]
    some = needle_rows(
        shards, T, {"multi-key": 1}, needle_loss_share=0, text_loss_share=0, **options
    )[0]
    answers = row["answer_mask"].bool()
    assert torch.equal(some["labels"] != -100, answers) and torch.equal(
        text["labels"] != -100, answers
    )
    hidden = row["labels"] == -100
    # eight sentences and a prompt for each answer, and what closes it has a loss
    assert 100 < hidden.sum() < T // 2 and not hidden[answers].any()
    ends = answers[:-1] & ~answers[1:]
    assert ends.sum() >= 1 and not hidden[1:][ends].any()


def test_rows_of_text_alone_keep_all_their_labels(shards):
    rows = needle_rows(shards, T, {"single": 1, "text": 1}, text_loss_share=0.25)
    kept = [(rows[i]["labels"] != -100).float().mean().item() for i in range(12)]
    assert set(kept) - {1.0} and 1.0 in kept
    assert all(share == 1.0 or share < 0.5 for share in kept)


def test_noise_spoils_the_text_and_leaves_needles_and_questions(shards):
    options = {"include_answer_mask": True, "exercises_per_row": 6, "excluded_ids": [1, 2]}
    clean = needle_rows(shards, T, {"multi-key": 1}, **options)
    noisy = needle_rows(shards, T, {"multi-key": 1}, noisy_text_rate=1.0, **options)
    shares = []
    for index in range(12):
        before, after = clean[index], noisy[index]
        answers = after["answer_mask"].bool()
        assert torch.equal(answers, before["answer_mask"].bool())
        differs = before["input_ids"] != after["input_ids"]
        assert not differs[answers].any()
        shares.append(differs.float().mean().item())
        drawn = after["input_ids"][differs]
        assert not torch.isin(drawn, torch.tensor([1, 2, shards.eos_token_id])).any()
        # only answers are learned from
        assert torch.equal(after["labels"] != -100, answers)
    assert min(shares) < 0.3 and max(shares) > 0.5
    other = needle_rows(shards, T, {"multi-key": 1}, noisy_text_rate=0.5, **options)
    spoiled = [not torch.equal(other[i]["input_ids"], clean[i]["input_ids"]) for i in range(40)]
    assert 8 <= sum(spoiled) <= 32


def test_noise_in_half_of_the_spoiled_rows_repeats_itself(shards):
    rows = needle_rows(shards, T, {"single": 1}, noisy_text_rate=1.0, exercises_per_row=1)
    repeats = []
    for index in range(40):
        ids = rows[index]["input_ids"]
        same = [(ids[period:] == ids[:-period]).float().mean().item() for period in range(1, 65)]
        repeats.append(max(same))
    # a row that is hardly spoiled repeats nothing; one of few kinds of ids repeats by chance
    assert 5 <= sum(share > 0.4 for share in repeats) <= 35


def test_rows_without_needles_are_never_spoiled(shards):
    mixture = {"text": 1e9, "single": 1}
    clean = needle_rows(shards, T, mixture)
    spoiled = needle_rows(shards, T, mixture, noisy_text_rate=1.0)
    for index in range(3):
        assert torch.equal(spoiled[index]["input_ids"], clean[index]["input_ids"])
        assert (spoiled[index]["labels"] != -100).all()


def test_questions_close_their_chunk_as_generation_does(shards):
    rows = needle_rows(shards, T, {"single": 1}, question_break_rate=1.0, include_answer_mask=True)
    for index in range(4):
        row = rows[index]
        starts = [start for start, _ in runs(row["answer_mask"])]
        breaks = torch.zeros(T, dtype=torch.bool)
        for start in starts:
            breaks[:start] |= prompt_breaks(torch.ones(1, start, dtype=torch.bool))[0]
        assert torch.equal(row["chunk_breaks"], breaks)
        assert len(starts) == 4


def test_breaks_come_at_their_rate(shards):
    rows = needle_rows(shards, T, {"single": 1}, random_break_rate=0.1)
    breaks = torch.stack([rows[index]["chunk_breaks"] for index in range(20)])
    assert breaks.dtype == torch.bool
    assert 0.08 < breaks.float().mean() < 0.12


def test_weights_say_how_often_a_task_comes(shards):
    rows = needle_rows(
        shards, 256, {"single": 3, "text": 1}, include_answer_mask=True, exercises_per_row=1
    )
    with_needles = sum(bool(rows[index]["answer_mask"].any()) for index in range(1000))
    assert 700 <= with_needles <= 800


def test_a_batch_of_rows_trains_a_model(shards):
    torch.manual_seed(0)
    model = DRTForCausalLM(drt_tiny(vocab_size=16_384))
    rows = needle_rows(shards, 256, {"single": 1, "number": 1}, random_break_rate=0.05)
    batch = torch.utils.data.default_collate([rows[index] for index in range(2)])
    loss = model(**batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert model.model.embed_tokens.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("mixture", "options", "message"),
    [
        ({}, {}, "at least one needle task"),
        ({"text": 1}, {}, "at least one needle task"),
        ({"single": 0}, {}, "must be above 0"),
        ({"single": "much"}, {}, "must be above 0"),
        ({"needle": 1}, {}, "task must be one of"),
        ({"three-hop:40": 1}, {}, "lengthen the rows or lower the task's count"),
        ({"single": 1}, {"random_break_rate": 1.0}, "random_break_rate must lie in"),
        ({"single": 1}, {"text_loss_share": 1.5}, "text_loss_share must lie in"),
        ({"single": 1}, {"needle_loss_share": -1}, "needle_loss_share must lie in"),
        ({"single": 1}, {"exercises_per_row": 0}, "exercises_per_row must be at least 1"),
    ],
)
def test_bad_mixtures_are_refused(mixture, options, message, shards):
    with pytest.raises(ValueError, match=message):
        needle_rows(shards, T, mixture, **options)
