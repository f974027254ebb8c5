"""Claims about suites: what a run of a comparison is, and what is refused before it begins."""

from pathlib import Path

import pytest

from gcattn.compare.suite import load_suite, suite_runs, training_config

ROOT = Path(__file__).parents[2]
SUITE = """
name: two
base:
  model: {preset: drt_tiny, window_size: 48}
  data: {train: data/train, sequence_length: 480}
  training: {steps: 6, batch_size: 2, learning_rate: 1.0e-3, min_learning_rate: 2.0e-4}
models:
  window: {changes: {model: {retrieval_method: none}}}
  drt: {learning_rates: [4.0e-3], seeds: [3, 4]}
learning_rates: [1.0e-3, 2.0e-3]
positions: [64, 512]
texts:
  books: {data: [data/books], length: 512}
window: window
"""


@pytest.fixture
def write(tmp_path):
    def write(text=SUITE):
        file = tmp_path / "suite.yaml"
        file.write_text(text)
        return file

    return write


def test_every_model_runs_with_every_rate_and_seed_of_its_own_or_the_suite(write):
    names = [run.name for run in suite_runs(load_suite(write()))]
    assert names == [
        "window-lr0.001-seed0",
        "drt-lr0.004-seed3",
        "window-lr0.002-seed0",
        "drt-lr0.004-seed4",
    ]


def test_a_run_is_the_base_with_the_changes_of_its_model(write):
    suite = load_suite(write())
    window, drt, *_ = suite_runs(suite)
    one, other = (training_config(suite, run, Path("out")) for run in (window, drt))
    assert one.model.overrides == {"window_size": 48, "retrieval_method": "none"}
    assert other.model.overrides == {"window_size": 48}
    assert one.data == other.data
    assert (other.training.learning_rate, other.training.seed) == (4e-3, 3)
    assert one.output == "out"


def test_the_end_of_the_cosine_keeps_its_ratio_to_the_peak(write):
    suite = load_suite(write())
    for run in suite_runs(suite):
        training = training_config(suite, run, Path("out")).training
        assert training.min_learning_rate == pytest.approx(0.2 * training.learning_rate)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("window: window\n", "window: windo\n", "'windo' is none of the models"),
        ("positions: [64, 512]", "positions: [512, 64]", "positions must be rising"),
        ("length: 512}", "lenght: 512}", "did you mean 'length'"),
        ("retrieval_method: none", "retrieval_methd: none", "did you mean 'retrieval_method'"),
        ("learning_rates: [1.0e-3, 2.0e-3]", "learning_rates: []", "at least one value"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(write, old, new, message):
    with pytest.raises(ValueError, match=message):
        load_suite(write(SUITE.replace(old, new)))


def test_examples_of_suites_load():
    files = sorted((ROOT / "examples" / "compare").glob("*.yaml"))
    assert files
    for file in files:
        assert suite_runs(load_suite(file))
