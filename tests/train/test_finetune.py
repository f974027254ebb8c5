"""Fine-tuning: a run of the ordinary trainer on answers, for every kind of model."""

import json
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from gcattn.data import TokenShards, load_tokenizer, train_tokenizer
from gcattn.data.answer_rows import AnswerRows
from gcattn.data.examples import read_questions, read_summaries
from gcattn.models import DRTForCausalLM, drt_tiny
from gcattn.storage.lock import FolderInUseError, sole_writer
from gcattn.train.config import load_config
from gcattn.train.finetune import FineTuning, fine_tune

from .runs import assert_same_run, losses, records, run_and_signal

VOCAB_SIZE = 280
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
# every peer of the comparison with full attention
PEERS = {
    "drt": {},
    "landmark": {"retrieval_method": "none", "self_attention": "landmark"},
    "drt-every-layer": {"cross_attention_interval": 1},
    "window": {"retrieval_method": "none"},
    "two-more-layers": {"retrieval_method": "none", "num_upper_layers": 4},
    "full": {"retrieval_method": "none", "window_size": 4096},
    "block-recurrent": {"retrieval_method": "none", "num_recurrent_states": 8},
}
# the first two stand for all of them where time is short
LATER = [pytest.param(name, marks=pytest.mark.slow) for name in list(PEERS)[2:]]


@pytest.fixture(scope="module")
def save_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "small"
    train_tokenizer(
        iter(["Box 1 holds a lamp. Question: Answer: Summary: " * 3]), VOCAB_SIZE, folder
    )
    tokenizer = load_tokenizer(folder)

    def save(folder, **changes):
        torch.manual_seed(0)
        config = drt_tiny(vocab_size=VOCAB_SIZE, **SIZES, **changes)
        DRTForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture(scope="module")
def model(save_model, tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "data.jsonl"
    rows = [
        {"document": f"Box {n} holds a {thing}. " * 3, "question": f"Box {n}?", "answer": thing}
        for n, thing in enumerate(("lamp", "coin", "rope", "bell", "drum", "flag"))
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def task(model, data, tmp_path):
    def make(output="run", **changes):
        overrides = ("training.batch_size=1", "training.log_every=1", "training.save_every=0")
        settings = {"model": model, "train": data, "read": read_questions, "epochs": 1.0}
        settings |= {"output": str(tmp_path / output), "overrides": overrides} | changes
        return FineTuning(**settings)

    return make


def shards_of(task):
    output = Path(task.output)
    if not output.exists():
        fine_tune(task)
    return TokenShards(output / "examples/train")


def config_of(task):
    return load_config(Path(task.output) / "config.yaml")


def test_a_run_leaves_what_training_leaves(task, data):
    outcome = fine_tune(task(validation=data))
    config = config_of(task())
    assert outcome.step == config.training.steps > 0
    assert (config.data.loss, config.data.documents) == ("answers", "pack")
    assert {record["kind"] for record in records(config)} == {"train", "validation"}
    assert (Path(config.output) / f"checkpoint-{outcome.step}/manifest.json").is_file()
    assert DRTForCausalLM.from_pretrained(outcome.model_folder).config.hidden_size == 16


def test_passes_decide_the_steps_and_an_override_wins(task):
    one = task(overrides=("training.steps=1",))
    rows = len(AnswerRows(shards_of(one), config_of(one).data.sequence_length))
    assert fine_tune(task("two", epochs=2.0)).step == 2 * rows
    fixed = task("fixed", overrides=("training.steps=2", "training.batch_size=1"))
    assert fine_tune(fixed).step == 2


def test_the_loss_is_the_mean_over_the_tokens_of_answers(task):
    fixed = task(overrides=("training.steps=1", "training.batch_size=5", "training.log_every=1"))
    fine_tune(fixed)
    rows = AnswerRows(shards_of(fixed), config_of(fixed).data.sequence_length)
    assert len(rows) == 5  # one batch holds every row
    batch = {name: torch.stack([rows[i][name] for i in range(5)]) for name in rows[0]}
    labels = batch.pop("labels")
    start = DRTForCausalLM.from_pretrained(fixed.model).train()
    logits = start(**batch, use_cache=False).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert losses(config_of(fixed))[1] == pytest.approx(loss.item(), rel=1e-4)


def test_an_interrupted_run_goes_on_bitwise(task, monkeypatch):
    # the second pass begins after the signal
    overrides = ("training.batch_size=2", "training.log_every=1", "training.save_every=2")
    options = {"epochs": 2.0, "overrides": overrides}
    whole, parted = task("whole", **options), task("parted", **options)
    fine_tune(whole)
    outcome = run_and_signal(monkeypatch, parted, signal.SIGTERM, 2, run=fine_tune)
    assert (outcome.step, outcome.interrupted_by) == (2, signal.SIGTERM)
    fine_tune(parted, resume=True)
    assert_same_run(config_of(whole), config_of(parted))


def test_a_run_of_other_data_is_not_resumed(task, data):
    fine_tune(task(overrides=("training.steps=1",)))
    with pytest.raises(ValueError, match="already holds a run; add --resume"):
        fine_tune(task())
    lines = Path(data).read_text().splitlines()
    Path(data).write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ValueError, match="were made of other data or options"):
        fine_tune(task(), resume=True)
    short = task(overrides=("training.steps=1",))
    assert fine_tune(short, overwrite=True).model_folder is not None


def test_two_runs_cannot_share_an_output(task):
    with sole_writer(Path(task().output)), pytest.raises(FolderInUseError):
        fine_tune(task())


def test_a_folder_without_a_model_is_refused_before_anything_is_written(task, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no saved model"):
        fine_tune(task(model=str(tmp_path / "nothing")))
    assert not Path(task().output).exists()


@pytest.mark.parametrize("name", [*list(PEERS)[:2], *LATER])
def test_every_peer_is_taught_to_summarize(name, save_model, tmp_path):
    rows = [{"text": f"The {word} was found. " * 20, "summary": f"A {word}."} for word in "abcd"]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = FineTuning(
        model=save_model(tmp_path / "model", **PEERS[name]),
        output=str(tmp_path / "run"),
        train=str(source),
        read=read_summaries,
        sequence_length=128,
        overrides=("training.batch_size=2", "training.log_every=1"),
        epochs=1.0,
    )
    outcome = fine_tune(task)
    assert outcome.step == 2
    before = DRTForCausalLM.from_pretrained(task.model).state_dict()
    after = DRTForCausalLM.from_pretrained(outcome.model_folder).state_dict()
    assert any(not torch.equal(before[weight], after[weight]) for weight in before)


def test_a_taught_model_answers_what_it_was_taught(task):
    from gcattn.evals.questions import evaluate_questions

    overrides = (
        *("training.learning_rate=2e-2", "training.min_learning_rate=1e-3"),
        *("training.batch_size=2", "training.steps=30", "training.eval_every=0"),
    )
    taught = task(overrides=overrides)
    outcome = fine_tune(taught)
    learned = DRTForCausalLM.from_pretrained(outcome.model_folder).eval()
    answers = evaluate_questions(
        learned, load_tokenizer(taught.model), list(read_questions(taught.train)), segment_length=50
    )
    assert sum(answer.exact for answer in answers) >= 5
