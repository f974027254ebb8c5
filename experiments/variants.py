"""Train one variant of the tiny model the way `gcattn train` does, and say how its loss fell."""

from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from experiments.corpus import TRAIN_DOCUMENT_TOKENS, ExperimentCorpus
from gcattn.train.config import (
    DataSection,
    ModelSection,
    RetrievalSection,
    TopKChange,
    TrainConfig,
    TrainingSection,
)
from gcattn.train.run import run_training
from gcattn.train.run_log import LOG_FILE, read_log


def variant_config(
    corpus: ExperimentCorpus,
    output: Path,
    *,
    steps: int,
    seed: int,
    dense_steps: int = 0,
    batch_size: int = 8,
    **overrides: Any,
) -> TrainConfig:
    """Configure the training of `drt_tiny` with some fields changed.

    Args:
        corpus: What it is trained and validated on.
        output: Folder of the run.
        steps: Optimizer steps.
        seed: Of weights, row order and noise.
        dense_steps: For so many steps every past chunk is read, afterwards `retrieval_top_k`.
        batch_size: Rows per step.
        **overrides: Fields of `DRTConfig`.
    """
    # the end-of-text token of a document is not part of its row
    length = TRAIN_DOCUMENT_TOKENS - 1
    schedule = [TopKChange(step=0, top_k="all"), TopKChange(step=dense_steps, top_k=4)]
    return TrainConfig(
        model=ModelSection(preset="drt_tiny", overrides=overrides),
        data=DataSection(
            train=str(corpus.train),
            validation=str(corpus.validation[TRAIN_DOCUMENT_TOKENS]),
            sequence_length=length,
            documents="separate",
        ),
        training=TrainingSection(
            steps=steps,
            batch_size=batch_size,
            learning_rate=4e-3,
            min_learning_rate=4e-4,
            warmup=0.05,
            weight_decay=0.01,
            seed=seed,
            eval_every=max(1, steps // 10),
            eval_batches=4,
            save_every=0,
            log_every=max(1, steps // 50),
            keep_checkpoints=1,
        ),
        retrieval=RetrievalSection(top_k_schedule=schedule if dense_steps else []),
        output=str(output),
    )


def train_variant(config: TrainConfig, *, quiet: bool = True) -> Path:
    """Train, or take the model that an earlier call with this output finished.

    Returns:
        The folder of the model.

    Raises:
        KeyboardInterrupt: The run was interrupted; calling again goes on from its checkpoint.
    """
    console = Console(stderr=True, quiet=quiet)
    outcome = run_training(config, resume=True, console=console)
    if outcome.model_folder is None:
        raise KeyboardInterrupt
    return outcome.model_folder


def loss_curve(output: str | Path, kind: str) -> list[tuple[int, float]]:
    """Return step and loss of each record of one kind, "train" or "validation", of a run."""
    records = read_log(Path(output) / LOG_FILE)
    return [(r["step"], r["loss"]) for r in records if r["kind"] == kind]


def training_speed(output: str | Path) -> float:
    """Return the median tokens per second of a run's records."""
    records = read_log(Path(output) / LOG_FILE)
    return median(r["tokens_per_second"] for r in records if r["kind"] == "train")
