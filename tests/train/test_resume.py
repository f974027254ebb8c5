"""A resumed run repeats the uninterrupted one bit for bit, however it was ended."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from gcattn.storage.manifest import MANIFEST
from gcattn.train.checkpoints import DamagedCheckpointError
from gcattn.train.run import run_training

from .runs import assert_same_run, contents, losses, records, run_and_signal

# everything whose state could be lost: noise, short chunks, two passes a step, windows of the log
# that a checkpoint cuts, a schedule, and rows that are read a second time
EVERYTHING = (
    "training.batch_size=8",
    "training.gradient_accumulation=2",
    "training.log_every=3",
    "data.close_chunks_early=0.05",
    "retrieval.top_k_schedule=[{step: 2, top_k: all}, {step: 6, top_k: 2}]",
    "curriculum=[{step: 0, sequence_length: 32}, {step: 4, sequence_length: 64}]",
)


@pytest.fixture(scope="module")
def uninterrupted():
    """Filled by the first test: the configuration of the run that the others repeat."""
    return {}


@pytest.fixture
def whole_run(uninterrupted, make_config, tmp_path_factory):
    if not uninterrupted:
        output = tmp_path_factory.mktemp("uninterrupted") / "run"
        uninterrupted["config"] = make_config(*EVERYTHING, f"output={output}")
        run_training(uninterrupted["config"])
    return uninterrupted["config"]


@pytest.mark.parametrize(
    ("number", "step"),
    [(signal.SIGTERM, 5), pytest.param(signal.SIGINT, 3, marks=pytest.mark.slow)],
    ids=["SIGTERM", "SIGINT"],
)
def test_signalled_run_saves_at_the_step_end_and_resumes_bitwise(
    whole_run, make_config, monkeypatch, number, step
):
    config = make_config(*EVERYTHING)
    outcome = run_and_signal(monkeypatch, config, number, step)
    assert (outcome.step, outcome.interrupted_by) == (step, number)
    assert outcome.model_folder is None
    assert (Path(config.output) / f"checkpoint-{step}").is_dir()
    run_training(config, resume=True)
    assert_same_run(config, whole_run)


def test_killed_run_repeats_what_came_after_its_checkpoint(whole_run, make_config, capsys):
    """Killed while checkpoint-8 was written: it has no manifest and is passed over."""
    config = make_config(*EVERYTHING)
    shutil.copytree(whole_run.output, config.output)
    output = Path(config.output)
    (output / "config.yaml").unlink()
    shutil.rmtree(output / "model")
    (output / "checkpoint-8" / "manifest.json").unlink()
    with (output / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"step": 9, "kind": "tr')
    run_training(config, resume=True)
    assert "Ignoring" in capsys.readouterr().err
    assert_same_run(config, whole_run)


def test_resuming_a_finished_run_only_saves_its_model(whole_run, make_config):
    config = make_config(*EVERYTHING)
    shutil.copytree(whole_run.output, config.output)
    shutil.rmtree(Path(config.output) / "model")
    before = records(config)
    outcome = run_training(make_config(*EVERYTHING, f"output={config.output}"), resume=True)
    assert (outcome.step, records(config)) == (8, before)
    assert_same_run(config, whole_run)


def test_damaged_checkpoint_is_one_clear_line(whole_run, make_config):
    config = make_config(*EVERYTHING)
    for name in ("optimizer.pt", "model.safetensors", "rng_state.pth", "trainer_state.json"):
        shutil.rmtree(config.output, ignore_errors=True)
        shutil.copytree(whole_run.output, config.output)
        shutil.rmtree(Path(config.output) / "checkpoint-8")
        file = Path(config.output) / "checkpoint-4" / name
        file.write_bytes(b"\0" * file.stat().st_size)
        before = contents(config)
        message = f"No checkpoint in .* is whole: .*/checkpoint-4/{name} has changed"
        with pytest.raises(DamagedCheckpointError, match=message) as error:
            run_training(config, resume=True)
        assert "\n" not in str(error.value)
        assert contents(config) == before


def test_damage_of_a_checkpoint_without_checksums_is_one_clear_line(whole_run, make_config):
    """What an older release wrote knows sizes only, and loads where it is whole."""
    config = make_config(*EVERYTHING)
    shutil.copytree(whole_run.output, config.output)
    shutil.rmtree(Path(config.output) / "checkpoint-8")
    folder = Path(config.output) / "checkpoint-4"
    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.name != MANIFEST}
    (folder / MANIFEST).write_text(json.dumps({"step": 4, "files": sizes}))
    for name in ("optimizer.pt", "trainer_state.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(b"\0" * len(whole))
        with pytest.raises(DamagedCheckpointError, match="checkpoint-4 cannot be read") as error:
            run_training(config, resume=True)
        assert "\n" not in str(error.value)
        (folder / name).write_bytes(whole)
    run_training(config, resume=True)
    assert_same_run(config, whole_run)


def test_one_flipped_byte_makes_the_checkpoint_before_the_newest(whole_run, make_config, capsys):
    config = make_config(*EVERYTHING)
    shutil.copytree(whole_run.output, config.output)
    file = Path(config.output) / "checkpoint-8" / "optimizer.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    run_training(config, resume=True)
    assert f"{file} has changed since it was written." in capsys.readouterr().err
    assert_same_run(config, whole_run)


def test_resume_without_a_checkpoint_begins(make_config, capsys):
    config = make_config("training.steps=1")
    assert run_training(config, resume=True).step == 1
    assert "starting from the beginning" in capsys.readouterr().err


def test_run_can_be_made_longer_with_another_rhythm(make_config):
    config = make_config("training.steps=2", "training.keep_checkpoints=9")
    run_training(config)
    longer = ["training.steps=9", "training.log_every=3", "training.save_every=5"]
    outcome = run_training(make_config(*longer, "training.eval_every=6"), resume=True)
    assert outcome.step == 9
    assert list(losses(config)) == [1, 2, 3, 6, 9]
    assert list(losses(config, "validation")) == [2, 6, 9]
    left = {folder.name for folder in Path(config.output).glob("checkpoint-*")}
    assert left == {"checkpoint-5", "checkpoint-9"}


def test_old_checkpoints_are_deleted(make_config):
    config = make_config("training.save_every=1", "training.keep_checkpoints=3")
    run_training(config)
    left = {folder.name for folder in Path(config.output).glob("checkpoint-*")}
    assert left == {"checkpoint-6", "checkpoint-7", "checkpoint-8"}
    assert not (Path(config.output) / ".unfinished").exists()
