"""The grid: every cell once, resumed where it stopped, summed up as it should be."""

import dataclasses
import json

import matplotlib.axes
import numpy as np
import pytest

from gcattn.data import load_tokenizer
from gcattn.data.needle_tasks import Haystack, NeedleTask, NeedleVocabulary
from gcattn.evals import needle_cells
from gcattn.evals.cell_store import CellStore
from gcattn.evals.cells import CellRun
from gcattn.evals.needle_answer import NeedleAnswer
from gcattn.evals.needle_cells import NeedleCell, evaluate_needles, even_depths
from gcattn.evals.needle_plot import plot_needles
from gcattn.evals.needle_report import by_task_and_length, metrics, summarize
from gcattn.evals.weights_fingerprint import weights_fingerprint
from gcattn.evals.wilson import wilson_interval

TASKS = [NeedleTask("single"), NeedleTask("multi-key", 3)]
LENGTHS, DEPTHS = [140, 200], [0.0, 1.0]


def answer(index=0, *, exact=True, first=None, questions=1, failure=None, **changes):
    """Make an answer."""
    fields = {
        "index": index,
        "num_tokens": 100,
        "exact": exact,
        "num_questions": questions,
        "first_tokens_right": questions * exact if first is None else first,
        "retrieved": failure != "wrong_chunk",
        "failure": failure,
        "expected": [[5, 6]],
        "generated": [[5, 6 if exact else 7]],
        "prefill_seconds": 1.0,
        "answer_seconds": 0.5,
        "memory_bytes": {"device": 10, "host": 20},
        "peak_device_bytes": None,
    }
    return NeedleAnswer(**(fields | changes))


@pytest.fixture(scope="module")
def evaluate(shards, models):
    words = NeedleVocabulary(load_tokenizer(), "validation")

    def run(**options):
        settings = {"segment_length": 64, "num_samples": 2} | options
        return evaluate_needles(
            models["drt"], Haystack(shards), words, TASKS, LENGTHS, DEPTHS, CellRun(**settings)
        )

    return run


def scores(cells):
    """Return cells without times."""
    return [
        dataclasses.replace(
            cell,
            answers=tuple(
                dataclasses.replace(a, prefill_seconds=0, answer_seconds=0) for a in cell.answers
            ),
        )
        for cell in cells
    ]


@pytest.fixture(scope="module")
def whole(evaluate):
    """Return the cells of an evaluation, and the progress that it told."""
    progress = []
    return evaluate(on_progress=lambda done, total: progress.append((done, total))), progress


def test_every_cell_is_evaluated_once(whole):
    cells, progress = whole
    assert [(cell.task, cell.length, cell.depth) for cell in cells] == [
        (str(task), length, depth) for length in LENGTHS for task in TASKS for depth in DEPTHS
    ]
    assert all([a.index for a in cell.answers] == [0, 1] for cell in cells)
    total = 2 * len(TASKS) * len(DEPTHS) * sum(LENGTHS)
    assert progress[-1] == (total, total)
    assert progress == sorted(progress)


def test_an_interrupted_evaluation_goes_on(evaluate, whole, tmp_path, monkeypatch):
    expected = scores(whole[0])
    folder = tmp_path / "needle.cells"
    asked = []
    real = needle_cells.answer_samples

    def counted(*arguments, **options):
        if len(asked) == 5:
            raise KeyboardInterrupt
        asked.append(arguments[2])
        return real(*arguments, **options)

    monkeypatch.setattr(needle_cells, "answer_samples", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(store=CellStore(folder, {"seed": 0}))
    # two cells were whole, half of the third is lost
    assert len([file for file in folder.iterdir() if file.name != "settings"]) == 2
    (folder / ".single_200_0.000000.partial").write_text('[{"index"')  # a killed write

    monkeypatch.setattr(needle_cells, "answer_samples", real)
    monkeypatch.setattr(
        needle_cells, "answer_samples", lambda *a, **o: asked.append(a[2]) or real(*a, **o)
    )
    del asked[:]
    store = CellStore(folder, {"seed": 0})
    progress = []
    cells = evaluate(store=store, on_progress=lambda done, total: progress.append((done, total)))
    assert len(asked) == 2 * (8 - 2)
    assert progress[-1][0] == progress[-1][1]
    assert scores(cells) == expected
    store.remove()
    assert not folder.exists()


@pytest.mark.slow
def test_batches_run_over_depths_and_keep_every_cell(evaluate, tmp_path, monkeypatch):
    def without_bytes(cells):
        return [
            dataclasses.replace(
                cell, answers=tuple(dataclasses.replace(a, memory_bytes=None) for a in cell.answers)
            )
            for cell in scores(cells)
        ]

    sizes = []
    real = needle_cells.answer_samples

    def counted(model, samples, *arguments, **options):
        sizes.append(len(samples))
        return real(model, samples, *arguments, **options)

    monkeypatch.setattr(needle_cells, "answer_samples", counted)
    store = CellStore(tmp_path / "cells", {})
    batched = evaluate(batch_size=3, store=store)
    assert sizes == [3, 1] * 4  # two depths of two samples, for each task and length
    assert len([file for file in store.folder.iterdir() if file.name != "settings"]) == 8
    assert without_bytes(batched) == without_bytes(evaluate())


@pytest.mark.slow
def test_more_samples_are_evaluated_anew_and_fewer_are_taken(evaluate, tmp_path, monkeypatch):
    store = CellStore(tmp_path / "cells", {"seed": 0})
    two = evaluate(store=store)
    three = evaluate(store=store, num_samples=3)
    assert [cell.answers[:2] for cell in scores(three)] == [cell.answers for cell in scores(two)]
    monkeypatch.setattr(needle_cells, "answer_samples", None)
    one = evaluate(store=store, num_samples=1)
    assert [cell.answers for cell in one] == [cell.answers[:1] for cell in three]


def test_cells_of_another_model_are_refused(evaluate, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "LENGTHS", [140])
    monkeypatch.setitem(globals(), "DEPTHS", [0.5])
    evaluate(store=CellStore(tmp_path / "cells", {"weights": "a"}), num_samples=1)
    with pytest.raises(ValueError, match="unfinished evaluation with other settings"):
        CellStore(tmp_path / "cells", {"weights": "b"})


def test_the_fingerprint_follows_every_weight(models, make_llama):
    model = make_llama(64)
    before = weights_fingerprint(model)
    assert before == weights_fingerprint(make_llama(64))
    model.model.norm.weight.data[3] += 1e-3
    assert weights_fingerprint(model) != before


def test_the_fingerprint_does_not_depend_on_where_the_model_lies(make_llama, tmp_path):
    model = make_llama(64)
    found = set()
    for name in ("here", "there"):
        model.save_pretrained(tmp_path / name)
        loaded = type(model).from_pretrained(tmp_path / name, dtype="auto")
        found.add(weights_fingerprint(loaded))
    assert len(found) == 1


def test_a_length_without_room_fails_at_once(evaluate, monkeypatch):
    monkeypatch.setitem(globals(), "LENGTHS", [20, 200])
    monkeypatch.setattr(needle_cells, "answer_samples", None)
    with pytest.raises(ValueError, match="needs a length of at least"):
        evaluate()


def test_depths_run_from_start_to_end():
    assert even_depths(5) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert even_depths(1) == [0.5]
    with pytest.raises(ValueError, match="at least 1 depth"):
        even_depths(0)


def test_scores_are_counted():
    answers = [
        answer(questions=4),
        answer(exact=False, first=1, failure="right_chunk_wrong_token"),
        answer(exact=False, first=1, failure="right_chunk_wrong_token"),
        answer(exact=False, first=0, failure="wrong_chunk", peak_device_bytes=7),
    ]
    summary = summarize(answers)
    assert (summary.trials, summary.exact, summary.accuracy) == (4, 1, 0.25)
    assert summary.interval == wilson_interval(1, 4)
    assert summary.teacher_forced_first_token == 6 / 7
    assert summary.failures == {"wrong_chunk": 1, "right_chunk_wrong_token": 2}
    assert summary.retrieved == 0.75
    assert (summary.seconds, summary.prefill_seconds) == (1.5, 1.0)
    assert (summary.device_bytes, summary.host_bytes, summary.peak_device_bytes) == (10, 20, 7)


def make_cells():
    wrong = {"exact": False, "failure": "wrong_chunk"}
    return [
        NeedleCell("single", 4096, 0.0, answers=(answer(), answer())),
        NeedleCell("single", 4096, 1.0, answers=(answer(**wrong), answer(1, **wrong))),
        NeedleCell("single", 2**20, 0.0, answers=(answer(), answer(1, **wrong))),
        NeedleCell("single", 2**20, 1.0, answers=(answer(), answer())),
    ]


def test_results_are_plain_and_list_failures():
    report = json.loads(json.dumps(metrics(make_cells()), allow_nan=False))
    assert [(e["length"], e["accuracy"]) for e in report["by_length"]] == [
        (4096, 0.5),
        (2**20, 0.75),
    ]
    assert [e["accuracy"] for e in report["cells"]] == [1.0, 0.0, 0.5, 1.0]
    assert [(f["depth"], f["index"]) for f in report["failed_samples"]] == [
        (1.0, 0),
        (1.0, 1),
        (0.0, 1),
    ]
    assert list(by_task_and_length(make_cells())) == [("single", 4096), ("single", 2**20)]


def test_the_map_shows_depths_downwards_and_lengths_to_the_right(tmp_path, monkeypatch):
    shown = []
    real = matplotlib.axes.Axes.imshow

    def imshow(self, grid, **options):
        shown.append(np.array(grid))
        return real(self, grid, **options)

    monkeypatch.setattr(matplotlib.axes.Axes, "imshow", imshow)
    plot_needles(make_cells(), "a model", tmp_path / "map.png")
    (grid,) = shown
    np.testing.assert_array_equal(grid, [[1.0, 0.5], [0.0, 1.0]])
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [tmp_path / "map.png"]
