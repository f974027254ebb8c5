"""Fine-tuning on answers: examples in, a run of the ordinary trainer out.

The examples are encoded once into `<output>/examples`; from there on everything is `gcattn train`:
locks, checkpoints, resuming, logs and the saved model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from rich.console import Console

from gcattn.data.answer_rows import AnswerRows
from gcattn.data.examples import Example, prepare_examples
from gcattn.data.prepare import Progress
from gcattn.data.shard_index import sha256_of
from gcattn.data.source_files import find_files
from gcattn.data.token_shards import TokenShards
from gcattn.storage.lock import sole_writer
from gcattn.storage.whole import new_file
from gcattn.train.config import TrainConfig, config_from_tree
from gcattn.train.output_folder import refuse_taken
from gcattn.train.processes import on_first_process
from gcattn.train.run import TrainingOutcome, run_training
from gcattn.train.typed_yaml import apply_overrides

EXAMPLES_FOLDER = "examples"
_SOURCES_FILE = "sources.json"
# without other choices; a model that was trained with more forgets less at a lower rate
LEARNING_RATE, MIN_LEARNING_RATE, WARMUP = 3e-4, 3e-5, 0.05
BATCH_SIZE = 4
# rows that no length was given for have a multiple of so many tokens
_UNIT = 64


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """What is taught, to which model.

    Attributes:
        model: Folder of the saved model to start from.
        output: Folder of the run.
        train: Source of the examples.
        validation: Source of others, whose loss is measured; None measures none.
        read: Reads the examples of a source.
        reading: What the reader was told beside the source, remembered with the run.
        sequence_length: Tokens per row and of the longest example; None for as many as the longest
            training example has.
        max_examples: Training examples that are used.
        epochs: Passes over the rows.
        overrides: Changes to the training configuration, such as `training.batch_size=1`.
    """

    model: str
    output: str
    train: str
    read: Callable[[str], Iterable[Example]]
    validation: str | None = None
    reading: dict[str, Any] = field(default_factory=dict)
    sequence_length: int | None = None
    max_examples: int | None = None
    epochs: float = 3.0
    overrides: Sequence[str] = ()


def fine_tune(
    task: FineTuning,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
    on_progress: Progress | None = None,
) -> TrainingOutcome:
    """Teach a model; under torchrun every process calls this, and the first one prepares the data.

    Args:
        task: What is taught.
        resume: Continue the run in the output.
        overwrite: Delete a run that is in the output.
        console: Where progress is shown; standard error by default.
        on_progress: Called with the numbers of examples and tokens that are encoded.

    Raises:
        FileNotFoundError: Data or model are not there.
        ValueError: Examples, model or configuration do not fit, or the data of a run that is
            resumed have changed.
    """
    console = console or Console(stderr=True)
    # as the trainer's: under torchrun this joins the process group
    processes = PartialState(cpu=not torch.cuda.is_available())

    def prepare() -> None:
        _prepare(task, resume=resume, overwrite=overwrite, console=console, progress=on_progress)

    on_first_process(processes, prepare)
    config = _config(task, processes.num_processes)
    return run_training(config, resume=resume, overwrite=overwrite, console=console)


def _prepare(
    task: FineTuning, *, resume: bool, overwrite: bool, console: Console, progress: Progress | None
) -> None:
    """Encode the examples, or find them encoded by the run that is resumed."""
    output = Path(task.output)
    refuse_taken(output, resume=resume, overwrite=overwrite)
    if task.epochs <= 0 or not math.isfinite(task.epochs):
        raise ValueError(f"--epochs must be above 0, got {task.epochs}.")
    if not (Path(task.model) / "config.json").is_file():
        raise FileNotFoundError(
            f"{task.model} holds no saved model (it has no config.json); fine-tuning starts from "
            "one that gcattn train or save_pretrained wrote."
        )
    sources = _fingerprint(task)
    file = output / EXAMPLES_FOLDER / _SOURCES_FILE
    if resume and file.is_file():
        if json.loads(file.read_text(encoding="utf-8")) != sources:
            raise ValueError(
                f"The examples of the run in {output} were made of other data or options; set them "
                "back, or start a new run in another output."
            )
        return
    output.mkdir(parents=True, exist_ok=True)
    with sole_writer(output):
        most = task.sequence_length
        for name in ("train", "validation"):
            source = getattr(task, name)
            if source is None:
                continue
            prepared = prepare_examples(
                task.read(source),
                output / EXAMPLES_FOLDER / name,
                tokenizer=task.model,
                most_tokens=most,
                max_examples=task.max_examples if name == "train" else None,
                overwrite=(output / EXAMPLES_FOLDER / name).is_dir(),
                on_progress=progress,
            )
            shards = prepared.shards
            cut = (
                f", {prepared.num_cut:,} of them cut to {most:,} tokens" if prepared.num_cut else ""
            )
            console.print(
                f"{name}: {shards.num_documents:,} examples, {shards.num_tokens:,} tokens{cut}",
                highlight=False,
                soft_wrap=True,
            )
        with new_file(file) as stream:
            stream.write(json.dumps(sources, indent=2) + "\n")


def _fingerprint(task: FineTuning) -> dict[str, Any]:
    """Return what the examples depend on, as JSON has it."""
    hashes = {}
    for source in filter(None, (task.train, task.validation)):
        files = find_files(source, task.reading.get("split"))
        hashes[source] = None if files is None else [sha256_of(file) for file in files]
    known: dict[str, Any] = {
        "train": task.train,
        "validation": task.validation,
        "sha256": hashes,
        "reading": task.reading,
        "tokenizer_sha256": sha256_of(Path(task.model) / "tokenizer.json"),
        "sequence_length": task.sequence_length,
        "max_examples": task.max_examples,
    }
    plain: dict[str, Any] = json.loads(json.dumps(known))
    return plain


def _config(task: FineTuning, num_processes: int) -> TrainConfig:
    """Return the training configuration, with as many steps as the passes take."""
    folder = Path(task.output) / EXAMPLES_FOLDER
    shards = TokenShards(folder / "train")
    all_shards = [shards]
    if task.validation is not None:
        all_shards.append(TokenShards(folder / "validation"))
    longest = max(int(np.diff(each.document_starts).max()) for each in all_shards)
    tree: dict[str, Any] = {
        "model": {"from": task.model},
        "data": {
            "train": str(folder / "train"),
            "validation": None if task.validation is None else str(folder / "validation"),
            "sequence_length": task.sequence_length or _UNIT * -(-longest // _UNIT),
            "documents": "pack",
            "loss": "answers",
        },
        "training": {
            "batch_size": BATCH_SIZE,
            "learning_rate": LEARNING_RATE,
            "min_learning_rate": MIN_LEARNING_RATE,
            "warmup": WARMUP,
            "eval_every": 100,
        },
        "output": task.output,
    }
    apply_overrides(tree, task.overrides)
    training = tree["training"]
    if "steps" not in training:
        # the file is read as a whole before anything is made of it
        config = config_from_tree({**tree, "training": {**training, "steps": 1}})
        rows = AnswerRows(shards, config.data.sequence_length)
        per_step = config.training.batch_size * config.training.gradient_accumulation
        training["steps"] = math.ceil(task.epochs * len(rows) / (per_step * num_processes))
    return config_from_tree(tree)
