"""Grouped Cross-Attention on short sequences: it trains, and falls below a model without it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from gcattn.experiments.corpus import ExperimentCorpus
from gcattn.experiments.variants import loss_curve, train_variant, variant_config


def train_short_sequences(
    corpus: ExperimentCorpus,
    folder: str | Path,
    *,
    steps: int,
    seeds: Sequence[int],
    on_run: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train the same model with and without cross-attention, both on rows of a few hundred tokens.

    Args:
        corpus: Documents of a few dozen chunks.
        folder: Runs go here; those that an earlier call finished are taken as they are, those of
            the retrieval experiment too: they are the same.
        steps: Optimizer steps.
        seeds: One run each.
        on_run: Told what begins.

    Returns:
        For each of "with_gca" and "without_gca" the first and last training loss, the last
        validation loss (every seed, mean, standard deviation) and the curves.
    """
    models = {}
    for name, method in (("with_gca", "learned"), ("without_gca", "none")):
        curves = []
        for seed in seeds:
            on_run(f"{name.replace('_', ' ')}, seed {seed}")
            config = variant_config(
                corpus,
                Path(folder) / f"{method}-{seed}",
                steps=steps,
                seed=seed,
                retrieval_method=method,
            )
            train_variant(config)
            curves.append({k: loss_curve(config.output, k) for k in ("train", "validation")})
        last = [curve["validation"][-1][1] for curve in curves]
        models[name] = {
            "first_training_loss": [curve["train"][0][1] for curve in curves],
            "last_training_loss": [curve["train"][-1][1] for curve in curves],
            "validation_loss": {
                "seeds": last,
                "mean": mean(last),
                "standard_deviation": stdev(last) if len(last) > 1 else 0.0,
            },
            "curves": curves,
        }
    return models
