"""One training run from configuration to saved model: what `gcattn train` calls."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from accelerate import PartialState
from rich.console import Console
from transformers import TrainerCallback, TrainerState, set_seed
from transformers.utils import logging as transformers_logging

from gcattn.data.answer_rows import AnswerRows
from gcattn.data.needle_tasks import NeedleRows
from gcattn.data.shard_dataset import ShardDataset
from gcattn.data.token_shards import TokenShards
from gcattn.data.tokenizer_checks import check_same_tokenizer, check_vocabulary
from gcattn.data.tokenizer_loading import load_tokenizer
from gcattn.data.words.split import Split
from gcattn.storage.full_disk import naming_full_disk
from gcattn.storage.lock import sole_writer
from gcattn.storage.whole import new_folder
from gcattn.train.arguments import training_arguments
from gcattn.train.checkpoints import checkpoint_step, checkpoint_to_resume, reading
from gcattn.train.compilation import compile_layers
from gcattn.train.config import TrainConfig
from gcattn.train.freed_memory import give_back_excess, keep_freed_memory
from gcattn.train.interruption import Interruption
from gcattn.train.model import build_model
from gcattn.train.out_of_memory import naming_full_memory
from gcattn.train.output_folder import MODEL_FOLDER, claim_output
from gcattn.train.processes import on_first_process
from gcattn.train.progress import ProgressDisplay
from gcattn.train.records import Records
from gcattn.train.rhythm import Rhythm
from gcattn.train.row_sampler import mix_seeds
from gcattn.train.run_log import LOG_FILE, RunLog
from gcattn.train.trainer import DRTTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gcattn.models import DRTForCausalLM

Rows: TypeAlias = ShardDataset | NeedleRows | AnswerRows


@dataclass(frozen=True)
class TrainingOutcome:
    """How a run ended.

    Attributes:
        step: Finished optimizer steps.
        interrupted_by: Signal that stopped it, 0 if it came to its end.
        model_folder: The saved model, None if it was interrupted.
    """

    step: int
    interrupted_by: int
    model_folder: Path | None


class _GiveBack(TrainerCallback):
    """Bounds the freed memory that is kept."""

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Give back what is too much."""
        give_back_excess()


def run_training(
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> TrainingOutcome:
    """Train a model and save it in `<output>/model`.

    Under torchrun every process calls this; the first one writes.

    Args:
        config: The run.
        resume: Continue from the newest whole checkpoint of `config.output`, from the beginning if
            there is none.
        overwrite: Delete a run that is in `config.output`.
        console: Where progress is shown; standard error by default.

    Raises:
        FileNotFoundError: Data or model are not where the configuration says.
        ValueError: Configuration, data and model do not fit, or a checkpoint is damaged.
        DivergedError: The loss is no longer finite.
        OutOfMemoryError: The run does not fit into memory.
        OSError: The output folder is not writable; a full disk is a `DiskFullError`.
    """
    with naming_full_disk(config.output), naming_full_memory(), ExitStack() as until_the_end:
        return _run(config, resume, overwrite, console or Console(stderr=True), until_the_end)


def _run(
    config: TrainConfig, resume: bool, overwrite: bool, console: Console, until_the_end: ExitStack
) -> TrainingOutcome:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    args = training_arguments(config)
    processes = PartialState()
    train_shards = TokenShards(config.data.train)
    tokenizer = load_tokenizer(_tokenizer_folder(config, train_shards))
    set_seed(config.training.seed)
    model = build_model(config.model, train_shards)
    train_rows, validation_rows = _rows(config, model, train_shards)

    def claim() -> tuple[Path | None, list[str]]:
        output = Path(config.output)
        until_the_end.enter_context(sole_writer(output))
        claim_output(config, resume=resume, overwrite=overwrite)
        checkpoint, complaints = checkpoint_to_resume(output) if resume else (None, [])
        # the resumed run writes later records again
        step = checkpoint_step(checkpoint) if checkpoint else 0
        if damaged := RunLog(output).drop_after(step):
            complaints.append(f"Dropping damaged lines of {LOG_FILE}: {damaged}.")
        return checkpoint, complaints

    checkpoint, complaints = on_first_process(processes, claim)
    if config.training.gradient_checkpointing:
        _enable_checkpointing(model)
    if config.training.compile:
        # or graphs for one length come first, a minute of work that the second step throws away
        compile_layers(model, dynamic=True if _columns_vary(config, train_rows) else None)
    trainer = DRTTrainer(
        config, args, model, train_rows, validation_rows, processing_class=tokenizer
    )
    interruption = Interruption()
    records = Records(Path(config.output))
    display = ProgressDisplay(console, trainer.tokens_per_step)
    for callback in (Rhythm(), records, display, interruption):
        trainer.add_callback(callback)
    if keep_freed_memory():
        trainer.add_callback(_GiveBack())
    if processes.is_main_process:
        for line in (*complaints, *_introduction(config, trainer, model, checkpoint, resume)):
            console.print(line, highlight=False, soft_wrap=True)

    step = checkpoint_step(checkpoint) if checkpoint else 0
    try:
        with interruption.watch():
            step = _train(trainer, checkpoint, config.training.steps)
    finally:
        display.close()
        records.close()
    if interruption.stopped_by:
        return TrainingOutcome(step, interruption.stopped_by, None)
    folder = _save_model(trainer, tokenizer, Path(config.output))
    return TrainingOutcome(step, 0, folder)


def _tokenizer_folder(config: TrainConfig, shards: TokenShards) -> Path:
    """Return where the run's tokenizer is: a model that is trained further keeps its own."""
    source = config.model.from_
    if source is not None and (Path(source) / "tokenizer.json").is_file():
        return Path(source)
    return shards.tokenizer_folder


def _rows(
    config: TrainConfig, model: DRTForCausalLM, shards: TokenShards
) -> tuple[Rows, Rows | None]:
    data, chunk_size = config.data, model.config.chunk_size
    shortest = min([data.sequence_length, *(c.sequence_length for c in config.curriculum)])
    if shortest < chunk_size:
        raise ValueError(
            f"data.sequence_length and the lengths of curriculum must be at least "
            f"model.chunk_size = {chunk_size}, got {shortest}."
        )
    train_rows = _rows_of(config, model, shards, "train", shortest)
    if data.validation is None:
        return train_rows, None
    validation = TokenShards(data.validation)
    check_same_tokenizer(shards, validation)
    check_vocabulary(validation, model.config.vocab_size)
    return train_rows, _rows_of(config, model, validation, "validation", shortest)


def _columns_vary(config: TrainConfig, rows: Rows) -> bool:
    """Return whether chunks of the rows close early, so that the rows differ in their landmarks."""
    breaks = {"chunk_breaks", "document_ids"}
    return config.data.close_chunks_early > 0 or not breaks.isdisjoint(rows[0])


def _rows_of(
    config: TrainConfig, model: DRTForCausalLM, shards: TokenShards, split: Split, shortest: int
) -> Rows:
    """Return rows of text, with needles of the split if the configuration has tasks."""
    data, tasks = config.data, config.tasks
    if data.loss == "answers":
        return AnswerRows(shards, data.sequence_length)
    if tasks is None:
        return ShardDataset(
            shards, data.sequence_length, data.documents, library_rate=data.library_rate
        )
    rows = NeedleRows(
        shards,
        data.sequence_length,
        tasks,
        split=split,
        seed=config.training.seed,
        library_rate=data.library_rate,
        include_evidence=split == "train" and config.retrieval.evidence_loss > 0,
    )
    rows.check_length(shortest)
    return rows


def _enable_checkpointing(model: DRTForCausalLM) -> None:
    # the name changed in transformers 5.23
    new_name = getattr(model, "activation_checkpointing_enable", None)
    (new_name or model.gradient_checkpointing_enable)()


def _introduction(
    config: TrainConfig,
    trainer: DRTTrainer,
    model: DRTForCausalLM,
    checkpoint: Path | None,
    resume: bool,
) -> list[str]:
    args, training = trainer.args, config.training
    parameters = sum(parameter.numel() for parameter in model.parameters())
    kind = config.model.preset or config.model.from_
    precision = "bf16" if args.bf16 else "fp32"
    lines = [
        f"{kind}: {parameters / 1e6:.1f}M parameters, {precision} on "
        f"{args.world_size} x {args.device.type}",
        f"{trainer.rows_per_step} rows x {config.data.sequence_length:,} tokens a step, "
        f"{training.steps:,} steps = {training.steps * trainer.tokens_per_step / 1e6:,.1f}M tokens",
    ]
    if checkpoint is not None:
        lines.append(f"Resuming from {checkpoint}")
    elif resume:
        lines.append(f"No whole checkpoint in {config.output}: starting from the beginning")
    return lines


def _train(trainer: DRTTrainer, checkpoint: Path | None, steps: int) -> int:
    seed, process = trainer.args.seed, trainer.args.process_index
    # every process explores with noise of its own
    set_seed(mix_seeds(seed, process) % 2**32)
    trainer.throughput.restart()
    if checkpoint is None:
        trainer.train()
        return trainer.state.global_step
    with reading(checkpoint):
        TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    if checkpoint_step(checkpoint) >= steps:
        trainer._load_from_checkpoint(str(checkpoint))
        return checkpoint_step(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    return trainer.state.global_step


def _save_model(
    trainer: DRTTrainer, tokenizer: PreTrainedTokenizerFast, output: Path
) -> Path | None:
    """Save what `from_pretrained` needs."""
    weights = trainer.accelerator.get_state_dict(trainer.model)
    folder = output / MODEL_FOLDER
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        with new_folder(folder, replace=True) as unfinished:
            model.save_pretrained(unfinished, state_dict=weights)
            tokenizer.save_pretrained(unfinished)
    trainer.accelerator.wait_for_everyone()
    return folder
