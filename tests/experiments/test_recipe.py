"""The recipe experiment: every variant is what its name says, and the command measures it."""

import json

import pytest

from experiments import chunks, recipe
from experiments.corpus import TRAIN_DOCUMENT_TOKENS, make_corpus
from experiments.recipe import RECIPES, recipe_config
from gcattn.cli.program import run_command


def config(name, tmp_path, steps=100):
    return recipe_config(RECIPES[name], tmp_path, tmp_path, tmp_path / "run", steps, 0)


def test_dense_first_reads_every_chunk_in_the_first_half_and_four_afterwards(tmp_path):
    changes = config("dense-first", tmp_path).retrieval.top_k_schedule
    assert [(change.step, change.top_k) for change in changes] == [(0, "all"), (50, 4)]
    assert config("dense-first", tmp_path).model.overrides == {}


def test_every_other_recipe_differs_from_base(tmp_path):
    base = config("base", tmp_path)
    for name in RECIPES:
        assert (config(name, tmp_path) == base) == (name == "base")


def test_the_papers_recipe_has_none_of_ours(tmp_path):
    paper = config("paper", tmp_path)
    assert paper.model.overrides["cross_attention_init"] == "plain"
    assert paper.model.overrides["residual_wiring"] == "bypass"
    assert paper.retrieval.top_k_schedule == []
    assert paper.tasks.text_loss_share == 1 and paper.tasks.question_break_rate == 0


@pytest.mark.slow
def test_command_trains_asks_and_writes_result_and_picture(tmp_path, capsys):
    corpus = make_corpus(tmp_path / "corpus", 64, {TRAIN_DOCUMENT_TOKENS: 2})
    validation = corpus.validation[TRAIN_DOCUMENT_TOKENS]
    command = ["--train", str(corpus.train), "--validation"]
    command += [str(validation), "--recipes", "base,random", "--steps", "10", "--seeds", "1"]
    command += ["--lengths", "200,300", "--samples", "1", "--runs", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as ended:
        run_command(recipe.command, "experiments.recipe", [*command, "--out", str(tmp_path)])
    assert ended.value.code == 0
    result = json.loads((tmp_path / "recipe.json").read_text())
    assert set(result["metrics"]) == {"base", "random"}
    for measured in result["metrics"].values():
        for score in measured["lengths"].values():
            assert 0 <= score["exact"]["mean"] <= 1 and score["trials_per_seed"] == 8
        assert len(measured["validation_curves"][0]) > 1
    assert (tmp_path / "recipe.png").stat().st_size > 5_000


def test_an_unknown_recipe_is_refused(tmp_path, capsys):
    command = ["--train", str(tmp_path), "--validation", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        command += ["--recipes", "base,soup", "--out", str(tmp_path)]
        run_command(recipe.command, "experiments.recipe", command)
    assert ended.value.code == 2
    assert "got soup" in capsys.readouterr().err


@pytest.mark.slow
def test_chunk_sizes_and_counts_are_compared(tmp_path, capsys, monkeypatch):
    corpus = make_corpus(tmp_path / "corpus", 64, {TRAIN_DOCUMENT_TOKENS: 2})
    validation = corpus.validation[TRAIN_DOCUMENT_TOKENS]
    monkeypatch.setattr("experiments.chunks.ROW_TOKENS", 480)
    command = ["--train", str(corpus.train), "--validation"]
    command += [str(validation), "--sizes", "8,16", "--counts", "2", "--steps", "10"]
    command += ["--seeds", "1", "--lengths", "200", "--samples", "1", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        command += ["--runs", str(tmp_path / "runs")]
        run_command(chunks.command, "experiments.chunks", command)
    assert ended.value.code == 0, capsys.readouterr().err
    result = json.loads((tmp_path / "chunks.json").read_text())
    assert list(result["metrics"]) == ["S8-K2", "S16-K2"]
    for measured in result["metrics"].values():
        assert len(measured["validation_loss"]["seeds"]) == 1
        assert measured["tokens_per_second"]["mean"] > 0
    config = json.loads((tmp_path / "runs" / "S8-K2-0" / "model" / "config.json").read_text())
    assert (config["chunk_size"], config["retrieval_top_k"]) == (8, 2)
    assert (tmp_path / "chunks.png").stat().st_size > 5_000
