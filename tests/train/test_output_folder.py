"""The folder of a run is never overwritten by accident, and never resumed as another run."""

from pathlib import Path

import pytest

from gcattn.train.output_folder import claim_output
from gcattn.train.run import run_training
from gcattn.train.run_log import RunLog, read_log


def test_folder_of_a_run_needs_resume_or_overwrite(make_config):
    config = make_config()
    claim_output(config)
    with pytest.raises(ValueError, match=r"already holds a run; add --resume.*--overwrite"):
        claim_output(config)
    claim_output(config, resume=True)
    claim_output(config, overwrite=True)
    with pytest.raises(ValueError, match="exclude each other"):
        claim_output(config, overwrite=True, resume=True)


def test_overwrite_deletes_the_run_and_nothing_else(make_config):
    config = make_config("training.steps=1")
    run_training(config)
    note = Path(config.output) / "note.txt"
    note.write_text("mine")
    claim_output(config, overwrite=True)
    assert {path.name for path in Path(config.output).iterdir()} == {"note.txt", "config.yaml"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.seed=5", "training.seed was 0 and is now 5"),
        ("training.batch_size=4", "training.batch_size was 2 and is now 4"),
        ("model.hidden_size=32", "model.hidden_size was 16 and is now 32"),
        ("data.documents=pack", "data.documents was 'ignore' and is now 'pack'"),
        ("curriculum=[{step: 1, sequence_length: 32}]", "curriculum was .* and is now"),
    ],
)
def test_resuming_as_another_run_is_refused(make_config, override, message):
    claim_output(make_config())
    with pytest.raises(ValueError, match=message):
        claim_output(make_config(override), resume=True)


def test_learning_rate_and_length_of_a_run_may_change(make_config):
    claim_output(make_config())
    claim_output(make_config("training.steps=99", "training.learning_rate=0.5"), resume=True)


def test_unwritable_folder_is_an_os_error(make_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        claim_output(make_config(f"output={tmp_path / 'file' / 'run'}"))


def test_log_survives_a_partial_line(tmp_path):
    log = RunLog(tmp_path)
    for step in range(1, 5):
        log.append({"step": step, "loss": 1 / step})
    with log.path.open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "lo')
    log.drop_after(3)
    log.append({"step": 4, "loss": 0.5})
    assert read_log(log.path) == [
        *({"step": step, "loss": 1 / step} for step in range(1, 4)),
        {"step": 4, "loss": 0.5},
    ]
