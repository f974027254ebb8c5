"""Claims about what is compared, on losses made by hand."""

import pytest

from gcattn.compare.comparison import write_comparison
from gcattn.compare.evaluation import write_evaluation
from gcattn.compare.report import compare
from gcattn.compare.runs import EVALUATION_FILE
from gcattn.compare.suite import Suite, suite_runs
from gcattn.results import describe_software, read_result


def suite(**changes):
    fields = {
        "name": "by_hand",
        "base": {},
        "models": {"window": {}, "full": {}, "drt": {}},
        "texts": {"books": {"data": ["b"], "length": 9}, "test": {"data": ["t"], "length": 9}},
        "learning_rates": [1e-3],
        "positions": [4, 8, 16],
        "window": "window",
        "full": "full",
    }
    fields["texts"]["test"]["selects"] = False
    return Suite(**(fields | changes))


def run(model, losses, *, rate=1e-3, seed=0, test=None, **ways):
    texts = {
        "books": {"losses": {"learned": losses, **ways}},
        "test": {"losses": {"learned": test or losses}},
    }
    facts = {"steps": 1, "tokens": 1, "parameters": 1, "flops_per_token": 1}
    cost = {"tokens_per_second": 100.0, "peak_memory_gib": 0.0}
    return {"model": model, "learning_rate": rate, "seed": seed, "texts": texts, **facts, **cost}


# two documents, three ranges of positions, of which the text reaches two
WINDOW = [[5.0, 4.0, None], [4.0, 3.0, None]]
FULL = [[5.0, 3.6, None], [4.0, 2.6, None]]
DRT = [[4.9, 3.7, None], [3.9, 2.7, None]]


@pytest.fixture
def books():
    runs = [run("window", WINDOW), run("full", FULL)]
    runs.append(run("drt", DRT, off=[[4.9, 4.2, None], [3.9, 3.2, None]]))
    return compare(suite(), runs)["models"]["drt"]["texts"]["books"]


def test_the_gain_is_what_the_window_loses_more(books):
    assert books["gain"]["mean"] == [0.1, 0.3, None]


def test_the_long_range_gain_is_what_grows_with_position(books):
    assert books["long_range_gain"]["mean"] == pytest.approx(0.2)
    assert books["long_range_gain"]["standard_error"] == pytest.approx(0, abs=1e-12)


def test_the_share_is_that_of_the_gap_from_window_to_full_attention(books):
    assert books["gap"] == [0.0, 0.4, None]
    assert books["share_of_gap"]["mean"][1] == pytest.approx(0.75)


def test_a_share_of_no_gap_is_no_number(books):
    assert books["share_of_gap"]["mean"][0] is None


def test_full_attention_that_is_behind_or_not_clearly_ahead_leaves_no_gap():
    behind = [[5.0, 4.1, None], [4.0, 3.1, None]]
    ahead_once = [[5.0, 3.2, None], [4.0, 3.0, None]]
    for full in (behind, ahead_once):
        runs = [run("window", WINDOW), run("full", full), run("drt", DRT)]
        report = compare(suite(), runs)["models"]["drt"]["texts"]["books"]
        assert report["gap"][1] != 0
        assert report["share_of_gap"]["mean"] == [None, None, None]


def test_switching_retrieval_off_costs_what_the_same_weights_lose(books):
    assert books["off"]["mean"] == [0.0, 0.5, None]
    assert "random" not in books


def test_each_model_counts_with_its_best_rate_and_test_data_choose_nothing():
    better, worse = [[4.0, 3.0, None]], [[4.1, 3.1, None]]
    runs = [
        run("window", better, test=worse),
        run("window", worse, rate=2e-3, test=[[0.0, 0.0, None]]),
    ]
    metrics = compare(suite(full=None), runs)
    assert metrics["models"]["window"]["learning_rate"] == 1e-3
    assert set(metrics["learning_rates"]["window"]) == {"0.001, seed 0", "0.002, seed 0"}


def test_seeds_give_a_spread():
    runs = [run("window", WINDOW), run("window", DRT, seed=1)]
    text = compare(suite(full=None), runs)["models"]["window"]["texts"]["books"]
    assert text["loss"]["mean"][:2] == pytest.approx([4.45, 3.35])
    assert text["loss"]["standard_deviation"][:2] == pytest.approx([0.07071, 0.21213], abs=1e-4)


def test_a_comparison_names_the_machine_that_trained_and_not_the_one_that_reports(tmp_path):
    wanted = suite(models={"window": {}, "full": {}})
    runs = suite_runs(wanted)
    for each, losses in zip(runs, (WINDOW, FULL), strict=True):
        source = {"version": "1", "commit": f"the commit of {each.model}"}
        made = run(each.model, losses) | {"hardware": {"gpu": "theirs"}, "source": source}
        write_evaluation(tmp_path / each.name / EVALUATION_FILE, made)
    write_comparison(wanted, runs, tmp_path, tmp_path / "out.json", {})
    result = read_result(tmp_path / "out.json")
    assert result["hardware"] == {"gpu": "theirs"}
    assert result["source"]["commit"] == "the commit of window, the commit of full"
    assert result["software"] == describe_software()  # these runs do not say theirs


def test_memory_is_that_of_a_process_that_trained():
    trained = run("window", WINDOW) | {"peak_memory_gib": 3.5}
    resumed = run("window", WINDOW, seed=1) | {"peak_memory_gib": None}
    assert compare(suite(), [trained, resumed])["models"]["window"]["peak_memory_gib"] == 3.5
    assert compare(suite(), [resumed])["models"]["window"]["peak_memory_gib"] is None
