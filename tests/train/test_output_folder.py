"""The folder of a run is never overwritten by accident, and never resumed as another run."""

import shutil
from pathlib import Path

import pytest
import yaml

from gcattn.models import DRTForCausalLM
from gcattn.storage.lock import LOCK_FILE, FolderInUseError, sole_writer
from gcattn.storage.removal import remove
from gcattn.train.output_folder import claim_output
from gcattn.train.run import run_training
from gcattn.train.run_log import RunLog, read_log
from gcattn.train.trainer import DRTTrainer


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


def test_folder_of_a_running_run_is_refused_however_a_second_one_asks(make_config):
    config = make_config("training.steps=2")
    run_training(config)
    before = contents(Path(config.output))
    with sole_writer(Path(config.output)):
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(FolderInUseError, match="in use by process"):
                run_training(make_config("training.steps=4"), **options)
    assert contents(Path(config.output)) == before


def test_run_holds_its_folder_from_the_first_step_to_the_saved_model(make_config, monkeypatch):
    config = make_config("training.steps=2")
    held = []

    def note(original):
        def noted(self, *args, **kwargs):
            with pytest.raises(FolderInUseError), sole_writer(Path(config.output)):
                pass
            held.append(original.__name__)
            return original(self, *args, **kwargs)

        return noted

    for owner, name in ((DRTTrainer, "training_step"), (DRTForCausalLM, "save_pretrained")):
        monkeypatch.setattr(owner, name, note(getattr(owner, name)))
    run_training(config)
    assert held[0] == "training_step" and held[-1] == "save_pretrained"
    assert not (Path(config.output) / LOCK_FILE).exists()


def test_links_in_the_folder_are_deleted_and_never_followed(make_config, tmp_path):
    """Checkpoints, model, log and leftovers that lie outside of the run stay as they are."""
    config = make_config("training.steps=2", "training.save_every=1", "training.keep_checkpoints=9")
    run_training(config)
    output, outside = Path(config.output), tmp_path / "outside"
    outside.mkdir()
    names = ["checkpoint-1", "checkpoint-2", "model", "tensorboard"]
    for name in names:
        shutil.move(output / name, outside / name)
        (output / name).symlink_to(outside / name)
    (outside / "mine").mkdir()
    (outside / "mine" / "note").write_text("mine")
    (output / ".unfinished").symlink_to(outside / "mine")
    before = contents(outside)
    longer = make_config("training.steps=4", "training.save_every=1", "training.keep_checkpoints=1")
    assert run_training(longer, resume=True).step == 4
    assert not (output / "model").is_symlink()
    written_through = {n: x for n, x in contents(outside).items() if "tensorboard" not in n}
    assert written_through == {n: x for n, x in before.items() if "tensorboard" not in n}
    for name in names:
        if (output / name).is_symlink():
            continue
        remove(output / name)
        (output / name).symlink_to(outside / name)
    before = contents(outside)
    claim_output(longer, overwrite=True)
    assert contents(outside) == before
    assert {path.name for path in output.iterdir()} == {"config.yaml"}


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "text", ["", "[", "- 1", "null", "a: b", "model: 3\n", "? [a]\n: b\n", "training: {steps: x}"]
)
def test_damaged_configuration_of_a_run_is_one_line_on_resume(make_config, text):
    config = make_config()
    claim_output(config)
    (Path(config.output) / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"started with cannot be read: .*config\.yaml") as error:
        claim_output(config, resume=True)
    assert "\n" not in str(error.value)


def test_run_of_an_older_release_resumes_with_the_defaults_of_new_keys(make_config):
    config = make_config()
    claim_output(config)
    file = Path(config.output) / "config.yaml"
    tree = yaml.safe_load(file.read_text())
    del tree["data"]["close_chunks_early"], tree["curriculum"], tree["training"]["fsdp"]
    file.write_text(yaml.safe_dump(tree))
    claim_output(config, resume=True)


@pytest.mark.parametrize(
    "line", ['{"loss": 1}', "[]", "3", '{"step": "1"}', "\x00\xff", "[" * 9999]
)
def test_damaged_lines_of_the_log_are_dropped_and_counted(tmp_path, line):
    log = RunLog(tmp_path)
    log.append({"step": 1, "loss": 2.0})
    with log.path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    log.append({"step": 2, "loss": 1.0})
    assert [record["step"] for record in read_log(log.path)] == [1, 2]
    assert log.drop_after(1) == 1
    assert log.drop_after(1) == 0
    assert read_log(log.path) == [{"step": 1, "loss": 2.0}]
