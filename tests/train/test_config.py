"""A configuration says what is wrong with it: key, section, what was expected, what came."""

from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from gcattn.train.config import TrainingSection, load_config

CORRECT = "model: {preset: drt_tiny}\ndata: {train: d, sequence_length: 64}\noutput: run\n"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.lerning_rate=1",
            "Unknown key 'lerning_rate' in section 'training'.*'learning_rate'",
        ),
        ("trainig.steps=1", "Unknown key 'trainig' in the configuration; did you mean 'training'"),
        (
            "model.hiden_size=8",
            "Unknown key 'hiden_size' in section 'model'; did you mean 'hidden_size'",
        ),
        ("data.zzz=8", "Unknown key 'zzz' in section 'data'; known keys: train, validation"),
        (
            "retrieval.top_k_schedule=[{stp: 0}]",
            r"Unknown key 'stp' in section .*schedule\[0\]'; did",
        ),
        ("model.landmark_token_id=5", "is no field any more: the landmark has an embedding of its"),
        ("training.steps=many", "training.steps must be a whole number, got 'many'"),
        ("training.steps=1.5", "training.steps must be a whole number, got 1.5"),
        ("training.fsdp=1", "training.fsdp must be true or false, got 1"),
        ("training.betas=[0.9]", "training.betas must be a list of 2 numbers, got"),
        ("training.betas=[0.9, x]", r"training.betas\[1\] must be a number, got 'x'"),
        ("training.precision=fp16", "precision must be 'auto' or 'bf16' or 'fp32', got 'fp16'"),
        ("training=7", "training must hold keys and values, got 7"),
        ("model.hidden_size=wide", "model.hidden_size must be a whole number, got 'wide'"),
        ("training.steps=0", "training.steps must be at least 1, got 0"),
        ("training.learning_rate=1e-5", "learning_rate must be above 0 and at least"),
        ("training.warmup=2.5", "fraction below 1 or whole steps, got 2.5"),
        ("data.close_chunks_early=1", r"close_chunks_early must lie in \[0, 1\), got 1.0"),
        ("data.library_rate=2", r"data.library_rate must lie in \[0, 1\], got 2"),
        ("data={train: x, sequence_length: 64, documents: pack, library_rate: 0.5}", "got 'pack'"),
        (
            "retrieval.top_k_schedule=[{step: 0, top_k: some}]",
            "a whole number or 'all', got 'some'",
        ),
        ("retrieval.top_k_schedule=[{step: 0, top_k: 0}]", "top_k must be at least 1, got 0"),
        (
            "retrieval.top_k_schedule=[{step: 5, top_k: 2}, {step: 5, top_k: 1}]",
            r"must list rising steps, got \[5, 5\]",
        ),
        (
            "curriculum=[{step: 0, sequence_length: 48}]",
            "must divide data.sequence_length = 64, got 48",
        ),
        ("model={}", "'model' needs one of the keys preset and from"),
        ("model={preset: drt_tiny, from: x}", "'model' needs one of the keys preset and from"),
        ("training.steps", "must look like section.key=value, got 'training.steps'"),
        ("output.x=1", "output holds no keys, cannot set output.x"),
        ("training.steps=[1", "training.steps=.*not valid YAML"),
    ],
)
def test_every_mistake_is_named(tmp_path, override, message):
    file = tmp_path / "config.yaml"
    file.write_text(CORRECT + "training: {steps: 10, batch_size: 1}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        load_config(file, [override])
    assert "\n" not in str(error.value)


NUMBERS = {
    "training": [field.name for field in fields(TrainingSection) if field.type in (int, float)],
    "data": ["sequence_length", "close_chunks_early", "library_rate"],
    "retrieval": ["noise_steps", "temperature_spread"],
}


@pytest.mark.parametrize(
    "value", ["1" + 23 * "0", "1" + 400 * "0", ".nan", ".inf", "-.inf", "1e999"]
)
@pytest.mark.parametrize("key", [f"{name}.{key}" for name, keys in NUMBERS.items() for key in keys])
def test_numbers_that_cannot_be_meant_are_refused_by_name(config_file, key, value):
    with pytest.raises(ValueError, match=f"^{key} must ") as error:
        load_config(config_file, [f"{key}={value}"])
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_more_tokens_a_step_than_a_device_can_read_are_refused(config_file):
    for override in ("training.batch_size=1000000000", "training.gradient_accumulation=5000000"):
        with pytest.raises(ValueError, match=r"tokens a step on every device; at most 268,435,456"):
            load_config(config_file, [override])


# each name holds the one before nine times
BOMB = "curriculum: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * ['*' + before])}]\n"
    for before, name in pairwise("abcdefghijklmnop")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + 600 * "[", "is nested too deeply"),
        ("a: " + 2000 * "{b: ", "is nested too deeply"),
        ("? [a, b]\n: c", "line 1 is not valid YAML: a key must be one word"),
        ("? {a: b}\n: c", "line 1 is not valid YAML: a key must be one word"),
        ("model: &a {preset: *a}", "model.preset must be text, got"),
        ("output: &a [*a]", "output must be text, got"),
        (BOMB, "Unknown key 'b'"),
        ("output: 2024-99-99", "is not valid YAML: month must be in"),
        ("output: 2024-01-01", "output must be text, got datetime.date"),
        ("training: " + 5000 * "9", "is not valid YAML: Exceeds the limit"),
        ("output: ''", "output must name a file or folder, got ''"),
        ('output: "a\\0b"', "output must name a file or folder"),
        ("output: ~nobody-of-that-name/run", "no such home folder"),
        ("model: !!python/name:os.system", "could not determine a constructor"),
        ("~: 3", "Unknown key None"),
    ],
)
def test_yaml_of_any_kind_is_answered_in_one_short_line(tmp_path, text, message):
    file = tmp_path / "config.yaml"
    whole = CORRECT + "training: {steps: 1, batch_size: 1}\n"
    kept = [line for line in whole.splitlines() if line.split(":")[0] != text.split(":")[0]]
    file.write_text("\n".join([text, *kept]))
    with pytest.raises(ValueError, match=message) as error:
        load_config(file)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize("text", [b"\xff\xfe", "output: ü".encode("utf-16")])
def test_file_that_is_no_text_is_named(tmp_path, text):
    (tmp_path / "config.yaml").write_bytes(text)
    with pytest.raises(ValueError, match=r"config\.yaml is not a text in UTF-8"):
        load_config(tmp_path / "config.yaml")


def test_home_folder_stands_for_a_tilde_in_every_path(config_file, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = ["output=~/run", "data.train=~/a", "data.validation=~/b", "model={from: ~/model}"]
    config = load_config(config_file, paths)
    assert config.output == f"{tmp_path}/run"
    assert (config.data.train, config.data.validation) == (f"{tmp_path}/a", f"{tmp_path}/b")
    assert config.model.from_ == f"{tmp_path}/model"


def test_missing_keys_and_files_are_named(tmp_path):
    file = tmp_path / "config.yaml"
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        load_config(file)
    file.write_text(CORRECT, encoding="utf-8")
    with pytest.raises(
        ValueError, match="training is missing; set it in the file or with training="
    ):
        load_config(file)
    with pytest.raises(ValueError, match=r"training\.batch_size is missing"):
        load_config(file, ["training.steps=3"])
    for text, message in (
        ("", "got nothing"),
        ("a: [", "line 1 is not valid YAML"),
        ("- x", "got"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            load_config(file)
    file.write_text(CORRECT + "output: again\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 4 .*'output' is given twice"):
        load_config(file)


def test_overrides_are_yaml_and_come_last(config_file):
    config = load_config(
        config_file,
        ["training.learning_rate=2e-3", "training.seed=7", "data.validation=null", "output=other"],
    )
    assert config.training.learning_rate == 2e-3
    assert config.training.seed == 7
    assert config.data.validation is None
    assert config.output == "other"


def test_written_configuration_reads_as_the_same_run(make_config, tmp_path):
    config = make_config("retrieval.top_k_schedule=[{step: 0, top_k: all}, {step: 9, top_k: 2}]")
    file = tmp_path / "written.yaml"
    file.write_text(yaml.safe_dump(config.as_dict()), encoding="utf-8")
    assert load_config(file) == config


def test_examples_load():
    files = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
    assert len(files) >= 4
    for file in files:
        assert load_config(file).training.steps > 0
