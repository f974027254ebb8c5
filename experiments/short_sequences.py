"""Grouped Cross-Attention on short sequences: it trains, and falls below a model without it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.corpus import TRAIN_DOCUMENT_TOKENS, ExperimentCorpus, make_corpus
from experiments.options import Documents, Out, Runs, Seeds, Steps, progress_console
from experiments.variants import loss_curve, train_variant, variant_config
from gcattn.cli.paths import RESULTS
from gcattn.cli.program import run_command
from gcattn.evals.spread import mean_and_spread
from gcattn.results import write_result


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
            "validation_loss": mean_and_spread(last),
            "curves": curves,
        }
    return models


def command(
    steps: Steps = 600,
    seeds: Seeds = 3,
    documents: Documents = 6000,
    runs: Runs = Path("runs/retrieval"),
    out: Out = RESULTS,
) -> None:
    """Train with and without Grouped Cross-Attention on rows of 35 short chunks."""
    from experiments.plots import plot_short_sequences

    console = progress_console()
    corpus = make_corpus(runs / "corpus", documents, {TRAIN_DOCUMENT_TOKENS: 64})
    metrics = train_short_sequences(
        corpus, runs, steps=steps, seeds=range(seeds), on_run=console.print
    )
    config = {"preset": "drt_tiny", "steps": steps, "documents": documents}
    file = write_result("short_sequences", config, metrics, folder=out, seed=0, trials=seeds)
    plot_short_sequences(metrics, file.with_suffix(".png"))
    for name, model in metrics.items():
        loss = model["validation_loss"]
        console.print(
            f"{name.replace('_', ' '):12} validation loss {loss['mean']:.3f} "
            f"± {loss['standard_deviation'] or 0.0:.3f}"
        )
    console.print(f"{file}, {file.with_suffix('.png')}")


if __name__ == "__main__":
    run_command(command, "experiments.short_sequences")
