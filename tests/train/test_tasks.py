"""Training on text with needles: rows keep whole exercises, and a resumed run is the same run."""

import signal
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import default_collate

from gcattn.data import TokenShardWriter, load_tokenizer
from gcattn.train.collation import Collator
from gcattn.train.config import load_config
from gcattn.train.row_sampler import LengthSampler, RowSampler
from gcattn.train.run import run_training
from gcattn.train.trainer import DRTTrainer

from .runs import assert_same_run, losses, records, run_and_signal

TASKS = "tasks={mixture: {single: 2, number: 1, text: 0.5}, exercises_per_row: 2}"
CURRICULUM = "curriculum=[{step: 0, sequence_length: 128}, {step: 2, sequence_length: 256}]"


@pytest.fixture(scope="module")
def haystack(tmp_path_factory):
    """Shards of the shipped tokenizer: needles are written with its words."""
    tokenizer, draw = load_tokenizer(), np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("haystack") / "shards"
    with TokenShardWriter(folder, tokenizer, "test") as writer:
        for _ in range(20):
            writer.append(2 + draw.zipf(1.3, 200) % 5000, 600)
    return folder


@pytest.fixture
def make_task_config(make_config, haystack):
    def make(*overrides):
        return make_config(
            f"data.train={haystack}",
            f"data.validation={haystack}",
            "data.sequence_length=256",
            "training.steps=4",
            "training.eval_every=0",
            "training.eval_batches=1",
            "training.save_every=0",
            TASKS,
            *overrides,
        )

    return make


def test_a_run_with_tasks_learns_and_resumes_bitwise(make_task_config, tmp_path, monkeypatch):
    options = (CURRICULUM, "data.close_chunks_early=0.05", "tasks.question_break_rate=0.5")
    whole = make_task_config(*options, f"output={tmp_path / 'whole'}")
    run_training(whole)
    assert losses(whole)[4] < losses(whole)[1]
    stopped = make_task_config(*options)
    assert run_and_signal(monkeypatch, stopped, signal.SIGTERM, 1).step == 1
    run_training(stopped, resume=True)
    assert_same_run(stopped, whole)


def test_the_retrievers_loss_is_taught_and_logged_apart(make_task_config, tmp_path, monkeypatch):
    options = ("tasks.question_break_rate=0.5", "training.gradient_accumulation=2")
    plain = make_task_config(*options, f"output={tmp_path / 'plain'}")
    run_training(plain)
    told = ("retrieval.evidence_loss=2", *options, "data.library_rate=0.5")
    whole = make_task_config(*told, f"output={tmp_path / 'whole'}")
    run_training(whole)
    first, *_, last = (r for r in records(whole) if r["kind"] == "train")
    assert last["retrieval_loss"] < first["retrieval_loss"]
    # the first step's rows and weights are the same: only their gradients differ
    alone = make_task_config(*told[:-1], "training.steps=1", f"output={tmp_path / 'alone'}")
    run_training(alone)
    assert losses(alone)[1] == pytest.approx(losses(plain)[1], rel=1e-5)
    assert "retrieval_loss" not in records(plain)[0]
    with pytest.raises(ValueError, match=r"retrieval\.evidence_loss needs tasks"):
        make_task_config(*told, "tasks=null", "data.library_rate=0")
    stopped = make_task_config(*told)
    assert run_and_signal(monkeypatch, stopped, signal.SIGTERM, 2).step == 2
    run_training(stopped, resume=True)
    assert_same_run(stopped, whole)


def test_every_piece_holds_whole_exercises(make_task_config, monkeypatch):
    seen = []
    real = DRTTrainer.training_step

    def spy(self, model, inputs, *args, **kwargs):
        seen.append((self.state.global_step, inputs["labels"].clone()))
        return real(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(DRTTrainer, "training_step", spy)
    # no labels but those of answers: five tokens of a value
    only_answers = "tasks={mixture: {single: 1}, exercises_per_row: 1, text_loss_share: 0}"
    run_training(make_task_config(CURRICULUM, only_answers))
    shapes = {step: tuple(labels.shape) for step, labels in seen}
    assert shapes == {0: (4, 128), 1: (4, 128), 2: (2, 256), 3: (2, 256)}
    for _, labels in seen:
        assert ((labels != -100).sum(1) == 5).all()


def test_short_chunks_of_rows_and_of_the_run_add_up(make_task_config, monkeypatch):
    fewest = {}
    real = DRTTrainer.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        if model.training:
            closed = fewest.setdefault(self.config.output, [])
            if "plan" in inputs:
                lengths = inputs["plan"].layout.chunk_lengths
                closed.append(((lengths > 0) & (lengths < 15)).sum().item())
            else:
                closed.append(inputs["chunk_breaks"].sum().item())
        return real(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(DRTTrainer, "compute_loss", spy)
    mixture = "tasks={mixture: {single: 1}, exercises_per_row: 2, question_break_rate: 1}"
    plain = make_task_config(mixture, "training.steps=1")
    run_training(plain)
    more = make_task_config(
        mixture, "training.steps=1", "data.close_chunks_early=0.2", f"output={plain.output}-more"
    )
    run_training(more)
    # two questions in each of two rows, closed at two places; a full chunk needs no closing
    assert 6 <= fewest[plain.output][0] <= 8
    assert 60 < fewest[more.output][0] < 150  # and a fifth of 512 tokens


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_planned_rows_train_as_others_do(make_task_config, monkeypatch, workers):
    options = [
        "tasks={mixture: {single: 1}, exercises_per_row: 2, question_break_rate: 1}",
        "training.steps=2",
        f"training.num_workers={workers}",
    ]
    planned = make_task_config(*options)
    run_training(planned)
    monkeypatch.setattr(Collator, "__call__", lambda self, rows: default_collate(list(rows)))
    plain = make_task_config(*options, f"output={planned.output}-plain")
    run_training(plain)
    assert losses(planned) == losses(plain)


def test_rows_that_are_a_library_train_on_what_only_retrieval_crosses(
    make_task_config, monkeypatch
):
    seen = []

    def spy(self, model, inputs, *args, **kwargs):
        seen.append((inputs, self.retrieval(inputs, training=model.training)))
        return original(self, model, inputs, *args, **kwargs)

    original = DRTTrainer.compute_loss
    monkeypatch.setattr(DRTTrainer, "compute_loss", spy)
    config = make_task_config("data.library_rate=0.5", "training.eval_every=2")
    run_training(config)
    assert all(retrieval.across_documents for _, retrieval in seen)
    with_documents = [inputs for inputs, _ in seen if "document_ids" in inputs]
    # a batch of rows without documents lies on the fixed grid
    assert 0 < len(with_documents) < len(seen)
    assert all("plan" in inputs for inputs in with_documents)
    begins = with_documents[0]["document_ids"].diff() != 0
    assert (with_documents[0]["labels"][:, 1:][begins] == -100).all()


def test_validation_asks_for_keys_that_training_never_saw(make_task_config):
    from gcattn.data import TokenShards
    from gcattn.data.needle_tasks.vocabulary import split_of
    from gcattn.models import DRTForCausalLM, drt_tiny
    from gcattn.train.run import _rows

    config = make_task_config("tasks={mixture: {single: 1}, exercises_per_row: 1}")
    model = DRTForCausalLM(drt_tiny(vocab_size=16_384, hidden_size=8, num_attention_heads=1))
    train, validation = _rows(config, model, TokenShards(config.data.train))
    for rows, split in ((train, "train"), (validation, "validation")):
        rows.include_answer_mask = True
        for index in range(20):
            row = rows[index]
            answer = row["input_ids"][row["answer_mask"].bool()]
            assert split_of(tuple(answer.tolist())) == split


def test_rows_come_with_the_length_of_their_step():
    rows = LengthSampler(RowSampler(50, 12, seed=3), lambda i: (10, 20)[i // 6])
    order = list(rows)
    assert len(rows) == 12
    assert [row for row, _ in order] == list(RowSampler(50, 12, seed=3))
    assert [length for _, length in order] == [10] * 6 + [20] * 6


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tasks={mixture: {singel: 1}}"], "tasks.mixture is refused: task must be one of"),
        (["tasks={mixture: {single: 0}}"], "tasks.mixture is refused: The weight"),
        (["tasks={mixture: {5: 1}}"], "A task must be named by text, got 5"),
        (["tasks={mixture: [single]}"], "tasks.mixture must be keys and values"),
        (["tasks={weights: {single: 1}}"], "Unknown key 'weights' in section 'tasks'"),
        (["tasks.text_loss_share=2"], r"tasks.text_loss_share must lie in \[0, 1\]"),
        (["tasks.exercises_per_row=0"], "tasks.exercises_per_row must be at least 1"),
        (["data.documents=pack"], "tasks need data.documents to be 'ignore'"),
    ],
)
def test_bad_tasks_are_refused(make_task_config, overrides, message):
    with pytest.raises(ValueError, match=message):
        make_task_config(*overrides)


def test_tasks_that_do_not_fit_are_refused_before_anything_is_written(make_task_config):
    config = make_task_config("tasks={mixture: {two-hop: 1}}", CURRICULUM)
    with pytest.raises(ValueError, match=r"'two-hop' takes .* a row has 128"):
        run_training(config)
    assert not Path(config.output).exists()


def test_the_written_configuration_is_read_back(make_task_config, tmp_path):
    import yaml

    config = make_task_config()
    file = tmp_path / "again.yaml"
    file.write_text(yaml.safe_dump(config.as_dict(), sort_keys=False))
    assert load_config(file) == config
    assert load_config(file, ["tasks=null"]).tasks is None
