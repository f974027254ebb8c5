"""Learned retrieval against random retrieval and none: same model, data, steps and seeds.

What is recalled in a document was stated hundreds of tokens before, far outside the sliding window:
only a model that retrieves the right chunk can predict it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from transformers import set_seed

from experiments.corpus import TRAIN_DOCUMENT_TOKENS, ExperimentCorpus, make_corpus
from experiments.options import Documents, Out, Runs, Seeds, Steps, progress_console
from experiments.recall import evaluate_recall
from experiments.variants import loss_curve, train_variant, variant_config
from gcattn.cli.paths import RESULTS
from gcattn.cli.program import run_command
from gcattn.data import TokenShards
from gcattn.evals.model_loading import load_causal_lm
from gcattn.evals.spread import mean_and_spread
from gcattn.results import write_result

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
    return {name: mean_and_spread([getattr(r, name) for r in results]) for name in LOSSES}


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
                    theirs["standard_deviation"] or 0.0, ours["standard_deviation"] or 0.0
                ),
            }
    return margins


def command(
    steps: Steps = 600,
    dense_steps: Annotated[
        int, typer.Option(min=0, help="Steps at the start in which every past chunk is read.")
    ] = 0,
    seeds: Seeds = 3,
    documents: Documents = 6000,
    runs: Runs = Path("runs/retrieval"),
    out: Out = RESULTS,
) -> None:
    """Compare learned with random retrieval and with none, equal steps, on long-range documents."""
    from experiments.plots import plot_retrieval

    console = progress_console()
    validation = {TRAIN_DOCUMENT_TOKENS: 64, 2048: 16}
    corpus = make_corpus(runs / "corpus", documents, validation)
    metrics = compare_retrieval(
        corpus,
        runs,
        steps=steps,
        dense_steps=dense_steps,
        seeds=range(seeds),
        on_run=console.print,
    )
    config = {
        "preset": "drt_tiny",
        "steps": steps,
        "dense_steps": dense_steps,
        "documents": documents,
        "train_document_tokens": TRAIN_DOCUMENT_TOKENS,
        "validation_documents": {str(n): count for n, count in validation.items()},
    }
    file = write_result("retrieval", config, metrics, folder=out, seed=0, trials=seeds)
    plot_retrieval(metrics, TRAIN_DOCUMENT_TOKENS, file.with_suffix(".png"))
    for length, margins in metrics["margins"].items():
        for other, margin in margins.items():
            console.print(
                f"{length} tokens: learned recalls {margin['mean_difference']:.2f} nats better "
                f"than {other} (spread of the seeds {margin['largest_standard_deviation']:.2f})"
            )
    console.print(f"{file}, {file.with_suffix('.png')}")


if __name__ == "__main__":
    run_command(command, "experiments.retrieval")
