"""Learned retrieval against random retrieval and none: same model, data, steps and seeds.

What is recalled in a document was stated hundreds of tokens before, far outside the sliding window:
only a model that retrieves the right chunk can predict it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from transformers import set_seed

from gcattn.data import TokenShards
from gcattn.evals.model_loading import load_causal_lm
from gcattn.evals.recall import evaluate_recall
from gcattn.experiments.corpus import ExperimentCorpus
from gcattn.experiments.variants import loss_curve, train_variant, variant_config

METHODS = ("learned", "random", "none")
LOSSES = ("recalled", "other", "overall")


def compare_retrieval(
    corpus: ExperimentCorpus,
    folder: str | Path,
    *,
    steps: int,
    dense_steps: int,
    seeds: Sequence[int],
    on_run: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train every method with every seed and measure recalled tokens and all others.

    Args:
        corpus: What is trained on, and documents of one or more lengths to measure.
        folder: Runs go here; those that an earlier call finished are taken as they are.
        steps: Optimizer steps of every run.
        dense_steps: So long every past chunk is read, for learned and random alike.
        seeds: One run each.
        on_run: Told what begins.

    Returns:
        `methods`: for each method and length the losses of every seed with mean and standard
        deviation, and the validation curve of every seed; `margins`: how much lower the learned
        method's recalled loss is, and the spread of the seeds.
    """
    folder = Path(folder)
    methods: dict[str, Any] = {}
    for method in METHODS:
        runs = []
        for seed in seeds:
            on_run(f"{method} retrieval, seed {seed}")
            config = variant_config(
                corpus,
                folder / f"{method}-{seed}",
                steps=steps,
                seed=seed,
                dense_steps=0 if method == "none" else dense_steps,
                retrieval_method=method,
            )
            model = load_causal_lm(str(train_variant(config)), device="auto", dtype="auto")
            set_seed(seed)  # random retrieval draws while it is evaluated too
            losses = {
                n: evaluate_recall(model, TokenShards(f)) for n, f in corpus.validation.items()
            }
            runs.append((losses, loss_curve(config.output, "validation")))
        methods[method] = {
            "parameters": model.num_parameters(),
            "lengths": {str(n): _summary([run[0][n] for run in runs]) for n in corpus.validation},
            "validation_curves": [curve for _, curve in runs],
        }
    return {"methods": methods, "margins": _margins(methods)}


def _summary(results: Sequence[Any]) -> dict[str, Any]:
    summary = {}
    for name in LOSSES:
        values = [getattr(result, name) for result in results]
        spread = stdev(values) if len(values) > 1 else 0.0
        summary[name] = {"seeds": values, "mean": mean(values), "standard_deviation": spread}
    return summary


def _margins(methods: dict[str, Any]) -> dict[str, Any]:
    """Say by how much the worst learned seed beats the best seed of each other method."""
    margins: dict[str, Any] = {}
    for length, learned in methods["learned"]["lengths"].items():
        margins[length] = {}
        for other in ("random", "none"):
            theirs = methods[other]["lengths"][length]["recalled"]
            ours = learned["recalled"]
            margins[length][other] = {
                "mean_difference": theirs["mean"] - ours["mean"],
                "worst_learned_to_best_other": min(theirs["seeds"]) - max(ours["seeds"]),
                "largest_standard_deviation": max(
                    theirs["standard_deviation"], ours["standard_deviation"]
                ),
            }
    return margins
