"""What makes retrieval and copying begin: one thing changed at a time, needles as the measure.

The base is what won so far; every variant takes one part of it away, and `paper` takes all. A tiny
model sees rows of 16 chunks, a few needles in each, and is then asked at the length it was trained
at and at lengths it has never seen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal

import typer

from experiments.options import (
    Out,
    Runs,
    Samples,
    Seeds,
    Steps,
    Train,
    Validation,
    progress_console,
)
from experiments.variants import loss_curve, train_variant, training_speed
from gcattn.cli.paths import RESULTS
from gcattn.cli.program import run_command
from gcattn.data import TokenShards
from gcattn.data.needle_tasks import Haystack, NeedlePlan, NeedleTask, NeedleVocabulary
from gcattn.evals.cells import CellRun
from gcattn.evals.lengths import parse_lengths
from gcattn.evals.model_loading import load_causal_lm
from gcattn.evals.needle_cells import evaluate_needles, even_depths
from gcattn.evals.needle_report import by_task_and_length
from gcattn.evals.spread import mean_and_spread
from gcattn.results import write_result
from gcattn.train.config import (
    DataSection,
    ModelSection,
    RetrievalSection,
    TopKChange,
    TrainConfig,
    TrainingSection,
)

# 16 chunks of 15 tokens
ROW_TOKENS = 240
TASK = NeedleTask.parse("single")
DEPTHS = 8


TASKS = NeedlePlan(
    mixture={"single": 1}, exercises_per_row=3, question_break_rate=0.5, text_loss_share=0.25
)


@dataclass(frozen=True)
class Recipe:
    """How a variant is trained.

    Attributes:
        what: What it changes, in words.
        model: Fields of `DRTConfig` that differ from `drt_tiny`'s.
        dense_share: Share of the steps in which every past chunk is read.
        tasks: What is hidden in the rows.
        batch_size: Rows per step.
        row_tokens: Tokens of a row.
        noise_share: Share of the steps with the noise that the model asks for.
        temperature_spread: Of the temperatures that the scores are divided by.
        optimizer: "adamw" or "muon".
    """

    what: str
    model: dict[str, Any] = field(default_factory=dict)
    dense_share: float = 0.0
    tasks: NeedlePlan = TASKS
    batch_size: int = 16
    row_tokens: int = ROW_TOKENS
    noise_share: float = 1.0
    temperature_spread: float = 1.0
    optimizer: Literal["adamw", "muon"] = "adamw"


_NO_CONVOLUTION = {"embedding_convolution_size": 1, "key_convolution_size": 1}
_PAPER = {
    "cross_attention_init": "plain",
    **_NO_CONVOLUTION,
    "retrieval_noise": "gumbel",
    "residual_wiring": "bypass",
    "softmax_off_by_one": True,
}
RECIPES = {
    "base": Recipe("aligned start, convolutions, loss mostly on answers"),
    "plain-start": Recipe("all maps start at random", {"cross_attention_init": "plain"}),
    "no-convolutions": Recipe("no convolutions", _NO_CONVOLUTION),
    "pooling": Recipe("landmarks gathered from all slots", {"landmark_pooling": True}),
    "dense-first": Recipe("every chunk read in the first half", dense_share=0.5),
    "dense": Recipe("every chunk read to the end", dense_share=1),
    "noise": Recipe("Gumbel noise on the scores", {"retrieval_noise": "gumbel"}),
    "noise-first": Recipe(
        "noise in the first half", {"retrieval_noise": "gumbel"}, noise_share=0.5
    ),
    "flat-scores": Recipe("scores start as the cosine", {"initial_score_scale": 1.0}),
    "sharp-scores": Recipe("scores start at 16 times the cosine", {"initial_score_scale": 16.0}),
    "temperatures": Recipe("a temperature from 1/2 to 2 for each landmark", temperature_spread=2),
    "muon": Recipe("Muon for the matrices of the layers", optimizer="muon"),
    "plain-muon": Recipe(
        "all maps start at random, and Muon", {"cross_attention_init": "plain"}, optimizer="muon"
    ),
    "one-reader": Recipe("the last layer alone reads", {"cross_attention_interval": 2}),
    "no-encoder": Recipe("no chunk encoder", {"num_encoder_layers": 0}),
    "text-loss": Recipe("loss on all tokens alike", tasks=replace(TASKS, text_loss_share=1)),
    "paper": Recipe(
        "the paper's: all of it",
        _PAPER,
        tasks=replace(TASKS, question_break_rate=0, text_loss_share=1),
    ),
    "bypass": Recipe("what is read bypasses the stream", {"residual_wiring": "bypass"}),
    "joint": Recipe("one softmax over all that was retrieved", {"chunk_mixing": "joint"}),
    "both": Recipe("half of the heads joint, half separate", {"chunk_mixing": "both"}),
    "off-by-one": Recipe("softmax-off-by-one", {"softmax_off_by_one": True}),
    "no-breaks": Recipe(
        "no question closes its chunk", tasks=replace(TASKS, question_break_rate=0)
    ),
    "self-copy": Recipe(
        "half of the rows copy spans",
        tasks=replace(TASKS, mixture={"single": 1, "self-copy:4": 1}),
    ),
    "few-rows": Recipe("4 rows a step", batch_size=4),
    "random": Recipe("random chunks", {"retrieval_method": "random"}),
}


def compare_recipes(
    train: Path,
    validation: Path,
    folder: Path,
    recipes: Mapping[str, Recipe],
    *,
    steps: int,
    seeds: Sequence[int],
    lengths: Sequence[int],
    num_samples: int,
    on_run: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train by each recipe with every seed and ask each model for needles.

    Args:
        train: Token shards that the rows are cut from.
        validation: Token shards of the questions' haystack.
        folder: Runs go here; those that an earlier call finished are taken as they are.
        recipes: By name.
        steps: Optimizer steps of every run.
        seeds: One run each.
        lengths: Tokens of the contexts that are asked.
        num_samples: Questions at each length and each of eight depths.
        on_run: Told what begins.

    Returns:
        For each recipe what it changes, and by length the exact share of every seed, mean and
        standard deviation, the teacher-forced share beside it, the validation curves and the loss
        that they end with, and tokens per second of the training steps.
    """
    haystack = Haystack(TokenShards(validation))
    tokenizer = haystack.shards.tokenizer
    results: dict[str, Any] = {}
    for name, recipe in recipes.items():
        scores, curves, speeds = [], [], []
        for seed in seeds:
            on_run(f"{name} ({recipe.what}), seed {seed}")
            output = folder / f"{name}-{seed}"
            config = recipe_config(recipe, train, validation, output, steps, seed)
            model = load_causal_lm(str(train_variant(config)), device="auto", dtype="auto")
            vocabulary = NeedleVocabulary(tokenizer, "validation")
            cells = evaluate_needles(
                model,
                haystack,
                vocabulary,
                [TASK],
                lengths,
                even_depths(DEPTHS),
                CellRun(num_samples=num_samples, segment_length=16_384, batch_size=16),
            )
            scores.append({n: s for (_, n), s in by_task_and_length(cells).items()})
            curves.append(loss_curve(output, "validation"))
            speeds.append(training_speed(output))
        results[name] = {
            "what": recipe.what,
            "lengths": {str(n): _summary([score[n] for score in scores]) for n in lengths},
            "validation_curves": curves,
            "validation_loss": mean_and_spread([curve[-1][1] for curve in curves]),
            "tokens_per_second": mean_and_spread(speeds),
        }
    return results


def recipe_config(
    recipe: Recipe, train: Path, validation: Path, output: Path, steps: int, seed: int
) -> TrainConfig:
    """Configure the training of `drt_tiny` by a recipe."""
    changes = [TopKChange(step=0, top_k="all")] if recipe.dense_share else []
    if 0 < recipe.dense_share < 1:
        changes.append(TopKChange(step=round(recipe.dense_share * steps), top_k=4))
    return TrainConfig(
        model=ModelSection(preset="drt_tiny", overrides=recipe.model),
        data=DataSection(
            train=str(train), validation=str(validation), sequence_length=recipe.row_tokens
        ),
        tasks=recipe.tasks,
        training=TrainingSection(
            steps=steps,
            batch_size=recipe.batch_size,
            learning_rate=2e-3,
            min_learning_rate=5e-4,
            warmup=0.02,
            optimizer=recipe.optimizer,
            seed=seed,
            eval_every=max(1, steps // 10),
            eval_batches=4,
            save_every=0,
            log_every=max(1, steps // 50),
            keep_checkpoints=1,
        ),
        retrieval=RetrievalSection(
            top_k_schedule=changes,
            noise_steps=None if recipe.noise_share == 1 else round(recipe.noise_share * steps),
            temperature_spread=recipe.temperature_spread,
        ),
        output=str(output),
    )


def _summary(seeds: Sequence[Any]) -> dict[str, Any]:
    exact = [seed.accuracy for seed in seeds]
    lenient = [seed.teacher_forced_first_token for seed in seeds]
    return {
        "exact": mean_and_spread(exact),
        "teacher_forced_first_token": {"seeds": lenient, "mean": mean(lenient)},
        "trials_per_seed": seeds[0].trials,
        "failures": [seed.failures for seed in seeds],
    }


def score_line(name: str, measured: dict[str, Any]) -> str:
    """Write what `compare_recipes` found for one recipe."""
    exact = "  ".join(
        f"{length}: {100 * of['exact']['mean']:.0f} %" for length, of in measured["lengths"].items()
    )
    loss = measured["validation_loss"]["mean"]
    return f"{name:15} {exact}  validation loss {loss:.3f}"


def study_recipes(
    study: str,
    recipes: Mapping[str, Recipe],
    train: Path,
    validation: Path,
    runs: Path,
    out: Path,
    *,
    steps: int,
    seeds: int,
    lengths: Sequence[int],
    samples: int,
    asked: Mapping[str, Any],
    plot: Callable[[dict[str, Any], Path], object],
) -> None:
    """Compare recipes, write and plot the result, and print a line for each.

    Args:
        study: Name of the result.
        asked: What else was asked for, for the result.
        plot: Draws the result into a file.

    The other arguments are those of `compare_recipes`.
    """
    console = progress_console()
    metrics = compare_recipes(
        train,
        validation,
        runs,
        recipes,
        steps=steps,
        seeds=range(seeds),
        lengths=lengths,
        num_samples=samples,
        on_run=console.print,
    )
    config = {
        "preset": "drt_tiny",
        "train": str(train),
        "validation": str(validation),
        "steps": steps,
        "lengths": lengths,
        "samples_per_depth": samples,
        **asked,
    }
    file = write_result(study, config, metrics, folder=out, seed=0, trials=seeds)
    plot(metrics, file.with_suffix(".png"))
    for name, measured in metrics.items():
        console.print(score_line(name, measured))
    console.print(f"{file}, {file.with_suffix('.png')}")


def command(
    train: Train,
    validation: Validation,
    recipes: Annotated[
        str, typer.Option(help="Recipes to train, separated by commas, or all.")
    ] = "all",
    steps: Steps = 500,
    seeds: Seeds = 3,
    lengths: Annotated[
        str, typer.Option(help="Context lengths of the questions, such as 240,2k,16k.")
    ] = "240,2k",
    samples: Samples = 4,
    runs: Runs = Path("runs/recipe"),
    out: Out = RESULTS,
) -> None:
    """Compare ways to train a retriever: one part of the recipe taken away at a time."""
    from experiments.plots import plot_recipes

    names = list(RECIPES) if recipes == "all" else recipes.split(",")
    if unknown := [name for name in names if name not in RECIPES]:
        raise ValueError(f"Recipes are {', '.join(RECIPES)}; got {', '.join(unknown)}.")
    study_recipes(
        "recipe",
        {name: RECIPES[name] for name in names},
        *(train, validation, runs, out),
        steps=steps,
        seeds=seeds,
        lengths=parse_lengths(lengths),
        samples=samples,
        asked={"row_tokens": ROW_TOKENS},
        plot=plot_recipes,
    )


if __name__ == "__main__":
    run_command(command, "experiments.recipe")
