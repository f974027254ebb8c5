"""`gcattn experiment`: what anyone new to the method runs first, as result files and pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcattn.cli.paths import RESULTS, expand

if TYPE_CHECKING:
    from rich.console import Console

experiment_app = typer.Typer(
    no_args_is_help=True, help="Experiments, each a command that writes its result."
)

Steps = Annotated[int, typer.Option(min=10, help="Optimizer steps of every run.")]
Seeds = Annotated[int, typer.Option(min=1, help="Runs of every variant, from seed 0 on.")]
Documents = Annotated[int, typer.Option(min=64, help="Documents to train on.")]
Runs = Annotated[
    Path, typer.Option(callback=expand, help="Corpus and runs; finished runs are not repeated.")
]
Train = Annotated[Path, typer.Option(callback=expand, help="Token shards that rows are cut from.")]
Validation = Annotated[
    Path, typer.Option(callback=expand, help="Token shards that questions are hidden in.")
]
Samples = Annotated[int, typer.Option(min=1, help="Questions at each of eight depths.")]
Out = Annotated[Path, typer.Option(callback=expand, help="Folder of the result and its picture.")]


@experiment_app.command("short-sequences")
def short_sequences(
    steps: Steps = 600,
    seeds: Seeds = 3,
    documents: Documents = 6000,
    runs: Runs = Path("runs/retrieval"),
    out: Out = RESULTS,
) -> None:
    """Train with and without Grouped Cross-Attention on rows of 35 short chunks."""
    from gcattn.experiments.corpus import TRAIN_DOCUMENT_TOKENS, make_corpus
    from gcattn.experiments.plots import plot_short_sequences
    from gcattn.experiments.short_sequences import train_short_sequences
    from gcattn.results import write_result

    console = _console()
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
            f"± {loss['standard_deviation']:.3f}"
        )
    console.print(f"{file}, {file.with_suffix('.png')}")


@experiment_app.command()
def retrieval(
    steps: Steps = 600,
    dense_steps: Annotated[
        int, typer.Option(min=0, help="Steps in which every past chunk is read.")
    ] = 0,
    seeds: Seeds = 3,
    documents: Documents = 6000,
    runs: Runs = Path("runs/retrieval"),
    out: Out = RESULTS,
) -> None:
    """Compare learned with random retrieval and with none, equal steps, on long-range documents."""
    from gcattn.experiments.corpus import TRAIN_DOCUMENT_TOKENS, make_corpus
    from gcattn.experiments.plots import plot_retrieval
    from gcattn.experiments.retrieval import compare_retrieval
    from gcattn.results import write_result

    console = _console()
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


@experiment_app.command()
def memory(
    preset: Annotated[str, typer.Option(help="drt_tiny, drt_12m, drt_34m, drt_128m …")] = (
        "drt_34m"
    ),
    lengths: Annotated[str, typer.Option(help="Context lengths, such as 16k,1m.")] = "16k,64k,256k",
    tokens: Annotated[int, typer.Option(min=64, help="Decoded tokens per measurement.")] = 192,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: the GPU if there is one.")] = (
        "auto"
    ),
    out: Out = RESULTS,
) -> None:
    """Measure bytes and latency with old chunks on the device and in host memory."""
    import torch

    from gcattn.evals.lengths import parse_lengths
    from gcattn.experiments.memory_tiers import measure_memory_tiers
    from gcattn.experiments.plots import plot_memory_tiers
    from gcattn.models import PRESETS
    from gcattn.results import write_result

    if preset not in PRESETS:
        raise ValueError(f"--preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    console = _console()
    metrics = measure_memory_tiers(
        PRESETS[preset](),
        parse_lengths(lengths),
        device=device,
        dtype=dtype,
        num_tokens=tokens,
        on_length=console.print,
    )
    config = {
        "preset": preset,
        "lengths": parse_lengths(lengths),
        "tokens": tokens,
        "device": device.partition(":")[0],
        "dtype": str(dtype).removeprefix("torch."),
    }
    file = write_result("memory_tiers", config, metrics, folder=out, seed=0, trials=tokens)
    plot_memory_tiers(metrics, file.with_suffix(".png"))
    for tier, by_length in metrics["tiers"].items():
        for length, measured in by_length.items():
            held = {place: f"{n / 2**20:,.0f} MiB" for place, n in measured["bytes"].items()}
            console.print(
                f"{tier:6} {int(length):>10,} tokens: {held['device']} on the device, "
                f"{held['host']} on the host, {measured['seconds_per_token'] * 1e3:.2f} ms a token"
            )
    console.print(f"{file}, {file.with_suffix('.png')}")


@experiment_app.command()
def recipe(
    train: Train,
    validation: Validation,
    recipes: Annotated[str, typer.Option(help="Names, or all.")] = "all",
    steps: Steps = 500,
    seeds: Seeds = 3,
    lengths: Annotated[str, typer.Option(help="Contexts asked, such as 240,2k,16k.")] = "240,2k",
    samples: Samples = 4,
    runs: Runs = Path("runs/recipe"),
    out: Out = RESULTS,
) -> None:
    """Compare ways to train a retriever: one part of the recipe taken away at a time."""
    from gcattn.evals.lengths import parse_lengths
    from gcattn.experiments.plots import plot_recipes
    from gcattn.experiments.recipe import RECIPES, ROW_TOKENS, compare_recipes
    from gcattn.results import write_result

    console = _console()
    names = list(RECIPES) if recipes == "all" else recipes.split(",")
    if unknown := [name for name in names if name not in RECIPES]:
        raise ValueError(f"Recipes are {', '.join(RECIPES)}; got {', '.join(unknown)}.")
    asked = parse_lengths(lengths)
    metrics = compare_recipes(
        train,
        validation,
        runs,
        {name: RECIPES[name] for name in names},
        steps=steps,
        seeds=range(seeds),
        lengths=asked,
        num_samples=samples,
        on_run=console.print,
    )
    config = {
        "preset": "drt_tiny",
        "train": str(train),
        "validation": str(validation),
        "steps": steps,
        "row_tokens": ROW_TOKENS,
        "lengths": asked,
        "samples_per_depth": samples,
    }
    file = write_result("recipe", config, metrics, folder=out, seed=0, trials=seeds)
    plot_recipes(metrics, file.with_suffix(".png"))
    for name, measured in metrics.items():
        console.print(_scores(name, measured))
    console.print(f"{file}, {file.with_suffix('.png')}")


@experiment_app.command()
def chunks(
    train: Train,
    validation: Validation,
    sizes: Annotated[str, typer.Option(help="Slots S of a chunk.")] = "16,32,64,128",
    counts: Annotated[str, typer.Option(help="Retrieved chunks K.")] = "1,2,4,8,16",
    steps: Steps = 250,
    seeds: Seeds = 2,
    lengths: Annotated[str, typer.Option(help="Contexts asked, such as 2k,16k.")] = "2k,16k",
    samples: Samples = 4,
    runs: Runs = Path("runs/chunks"),
    out: Out = RESULTS,
) -> None:
    """Compare chunk sizes and numbers of retrieved chunks: needles, loss and speed."""
    from gcattn.evals.lengths import parse_lengths
    from gcattn.experiments.chunk_sizes import ROW_TOKENS, WINDOW, chunk_recipes
    from gcattn.experiments.grid_plot import plot_grid
    from gcattn.experiments.recipe import compare_recipes
    from gcattn.results import write_result

    console = _console()
    asked = parse_lengths(lengths)
    all_sizes, all_counts = _numbers("--sizes", sizes), _numbers("--counts", counts)
    metrics = compare_recipes(
        train,
        validation,
        runs,
        chunk_recipes(all_sizes, all_counts),
        steps=steps,
        seeds=range(seeds),
        lengths=asked,
        num_samples=samples,
        on_run=console.print,
    )
    config = {
        "preset": "drt_tiny",
        "train": str(train),
        "validation": str(validation),
        "sizes": all_sizes,
        "counts": all_counts,
        "steps": steps,
        "row_tokens": ROW_TOKENS,
        "window": WINDOW,
        "lengths": asked,
        "samples_per_depth": samples,
    }
    file = write_result("chunks", config, metrics, folder=out, seed=0, trials=seeds)
    plot_grid(metrics, all_sizes, all_counts, asked, file.with_suffix(".png"))
    for name, measured in metrics.items():
        console.print(_scores(name, measured))
    console.print(f"{file}, {file.with_suffix('.png')}")


def _scores(name: str, measured: dict[str, Any]) -> str:
    """Write what `compare_recipes` found for one recipe."""
    exact = "  ".join(
        f"{length}: {100 * of['exact']['mean']:.0f} %" for length, of in measured["lengths"].items()
    )
    loss = measured["validation_loss"]["mean"]
    return f"{name:15} {exact}  validation loss {loss:.3f}"


def _numbers(option: str, text: str) -> list[int]:
    """Read whole numbers above 0, separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"{option} must be whole numbers such as 1,2,4, got {text!r}.")
    return [int(part) for part in parts]


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)
