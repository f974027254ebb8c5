"""The experiments run end to end and write what they say they write."""

import pytest

from experiments.corpus import TRAIN_DOCUMENT_TOKENS, make_corpus
from experiments.retrieval import _margins, compare_retrieval
from experiments.short_sequences import train_short_sequences


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"), 64, {TRAIN_DOCUMENT_TOKENS: 2})


@pytest.mark.slow
def test_a_corpus_is_made_once(corpus):
    folder = corpus.train.parent
    before = (corpus.train / "index.json").stat().st_mtime_ns
    again = make_corpus(folder, 64, {TRAIN_DOCUMENT_TOKENS: 2})
    assert again == corpus
    assert (corpus.train / "index.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_retrieval_experiment_measures_every_method_and_takes_finished_runs(corpus, tmp_path):
    began = []

    def run():
        return compare_retrieval(
            corpus, tmp_path, steps=10, dense_steps=5, seeds=[0], on_run=began.append
        )

    first = run()
    assert began == [f"{m} retrieval, seed 0" for m in ("learned", "random", "none")]
    learned, none = (first["methods"][m] for m in ("learned", "none"))
    assert learned["parameters"] > none["parameters"]
    for method in first["methods"].values():
        losses = method["lengths"][str(TRAIN_DOCUMENT_TOKENS)]
        assert 0 < losses["recalled"]["mean"] < 8 and 0 < losses["other"]["mean"] < 8
        curve = [loss for _, loss in method["validation_curves"][0]]
        assert curve[-1] < curve[0]
    weights = tmp_path / "learned-0" / "model" / "model.safetensors"
    before = weights.read_bytes()
    again = run()
    assert weights.read_bytes() == before
    assert again["methods"]["learned"] == learned


def test_margins_compare_the_worst_learned_seed_with_the_best_other_one():
    def losses(*seeds):
        mean = sum(seeds) / len(seeds)
        return {
            "lengths": {
                "9": {"recalled": {"seeds": seeds, "mean": mean, "standard_deviation": 0.1}}
            }
        }

    methods = {"learned": losses(0.2, 0.4), "random": losses(1.0, 1.2), "none": losses(0.3, 1.5)}
    margins = _margins(methods)["9"]
    assert margins["random"]["mean_difference"] == pytest.approx(0.8)
    assert margins["random"]["worst_learned_to_best_other"] == pytest.approx(0.6)
    assert margins["none"]["worst_learned_to_best_other"] == pytest.approx(-0.1)


@pytest.mark.slow
def test_loss_falls_on_short_sequences(corpus, tmp_path):
    models = train_short_sequences(corpus, tmp_path, steps=20, seeds=[0])
    for model in models.values():
        assert model["last_training_loss"][0] < model["first_training_loss"][0]
