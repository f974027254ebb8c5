"""The training loop: transformers' Trainer with what a DRT and exact resuming need.

Shapes: B rows, T tokens per row.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset, Subset
from transformers import PrinterCallback, Trainer, TrainingArguments

from gcattn.chunking.breaks import random_breaks
from gcattn.nn.evidence import Evidence
from gcattn.nn.retriever import Retrieval
from gcattn.ops.chunk_topk import RetrievalNoise
from gcattn.storage.full_disk import naming_full_disk
from gcattn.storage.removal import remove
from gcattn.train import schedules
from gcattn.train.checkpoints import (
    PREFIX,
    UNFINISHED,
    newest_checkpoint,
    publish_checkpoint,
    reading,
    remove_old_checkpoints,
)
from gcattn.train.collation import Collator
from gcattn.train.config import TrainConfig
from gcattn.train.muon import MuonWithAdamW, split_parameters
from gcattn.train.row_sampler import LengthSampler, RowSampler, mix_seeds
from gcattn.train.rows import cut_rows, ignore_unpredicted, most_chunks
from gcattn.train.throughput import Throughput


class DivergedError(ValueError):
    """The loss or the weights are no longer finite."""


class DRTTrainer(Trainer):
    """Trainer of a DRT: every quantity of a step is a function of configuration and step.

    Row order, learning rate, retrieval top-k and row length follow from the number of finished
    steps; noise follows from the saved generators. So a resumed run repeats the uninterrupted one.

    Args:
        config: The run.
        args: From `training_arguments(config)`.
        model: A DRTForCausalLM.
        train_dataset: Rows of "input_ids" and "labels" [T].
        eval_dataset: Rows to evaluate on; None evaluates nothing.
        kwargs: Passed on to the Trainer.
    """

    def __init__(
        self,
        config: TrainConfig,
        args: TrainingArguments,
        model: nn.Module,
        train_dataset: Dataset[dict[str, Tensor]],
        eval_dataset: Dataset[dict[str, Tensor]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.config = config
        if eval_dataset is not None:
            rows = config.training.eval_batches * config.training.batch_size * args.world_size
            eval_dataset = Subset(eval_dataset, range(min(rows, len(eval_dataset))))  # type: ignore[arg-type]
        # rows that are cut or broken later are planned by the model
        whole = not config.curriculum and config.data.close_chunks_early == 0
        drt: Any = model
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=Collator(drt.config if whole else None),
            **kwargs,
        )
        self.remove_callback(PrinterCallback)
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if plugin is not None and args.bf16:
            # accelerate would round the loss and the summed gradients to bfloat16
            plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
        self.throughput = Throughput()
        self.output = Path(config.output)
        self._micro_batch = 0
        # losses since the last log line
        self._window_loss = torch.zeros((), device=args.device)
        self._window_evidence = torch.zeros((), device=args.device)
        self._window_start = 0

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step over all devices."""
        training = self.config.training
        return training.batch_size * training.gradient_accumulation * self.args.world_size

    @property
    def tokens_per_step(self) -> int:
        """Text tokens of one optimizer step over all devices."""
        return self.rows_per_step * self.config.data.sequence_length

    def _get_train_sampler(self, train_dataset: Any = None) -> RowSampler | LengthSampler:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        order = RowSampler(
            len(rows), self.config.training.steps * self.rows_per_step, self.config.training.seed
        )
        if self.config.tasks is None:
            return order
        # a piece cut from a row with needles must hold whole exercises
        return LengthSampler(order, lambda i: self._sequence_length(i // self.rows_per_step))

    def _sequence_length(self, step: int) -> int:
        config = self.config
        return schedules.sequence_length(step, config.curriculum, config.data.sequence_length)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], *args: Any, **kwargs: Any
    ) -> Any:
        """Cut the rows of the step to its length, before predicted tokens are counted."""
        self._micro_batch = 0
        length = self._sequence_length(self.state.global_step)
        rows = (ignore_unpredicted(cut_rows(batch, length)) for batch in epoch_iterator)
        return super().get_batch_samples(rows, *args, **kwargs)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Close some chunks early if the configuration says so, then train on the rows."""
        probability = self.config.data.close_chunks_early
        if probability > 0:
            position = (self.state.global_step, self._micro_batch, self.args.process_index)
            seed = mix_seeds(self.config.training.seed, *position)
            generator = torch.Generator().manual_seed(seed)
            B, T = inputs["input_ids"].shape
            breaks = random_breaks((B, T), probability, generator)
            if "chunk_breaks" in inputs:
                breaks = breaks.to(inputs["chunk_breaks"].device) | inputs["chunk_breaks"]
            inputs["chunk_breaks"] = breaks
        self._micro_batch += 1
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._window_loss += loss
        self.throughput.add(inputs["input_ids"].numel() * self.args.world_size)
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> Any:
        """Run the model with the retrieval of the current step; add the loss of its retrievers."""
        marks = inputs.get("evidence")
        evidence = None if marks is None else Evidence(marks)
        retrieval = self.retrieval(inputs, training=model.training)
        step: dict[str, Any] = {
            **{name: x for name, x in inputs.items() if name != "evidence"},
            "use_cache": False,
            "return_logits": False,
            "retrieval": replace(retrieval, evidence=evidence),
        }
        loss: Any = super().compute_loss(model, step, *args, **kwargs)
        if evidence is None:
            return loss
        # the language-model loss is a mean over the whole step already
        part = evidence.mean() / self.config.training.gradient_accumulation
        self._window_evidence += part.detach()
        return loss + self.config.retrieval.evidence_loss * part

    def retrieval(self, inputs: dict[str, Tensor], *, training: bool) -> Retrieval:
        """Return how to retrieve at the current step; chance plays a part in training only."""
        schedule, model = self.config.retrieval, self.accelerator.unwrap_model(self.model).config
        top_k = self._top_k(inputs)
        top_k = model.retrieval_top_k if top_k is None else top_k
        is_library = self.config.data.library_rate > 0
        if not training:
            return Retrieval(top_k, across_documents=is_library)
        ends = schedule.noise_steps
        is_noisy = ends is None or self.state.global_step < ends
        noise: RetrievalNoise = model.retrieval_noise if is_noisy else "none"
        return Retrieval(top_k, noise, schedule.temperature_spread, is_library)

    def _top_k(self, inputs: dict[str, Tensor]) -> int | None:
        """Return the chunks to retrieve at the current step, None for the model's own number."""
        step = min(self.state.global_step, self.config.training.steps - 1)
        change = schedules.top_k_change(step, self.config.retrieval.top_k_schedule)
        if change is None:
            return None
        if change.top_k != "all":
            return change.top_k
        plan: Any = inputs.get("plan")
        if plan is not None:
            return int(plan.finished.max()) + 1
        forced = 0
        if "chunk_breaks" in inputs:
            forced += int(inputs["chunk_breaks"].sum(1).max())
        if "document_ids" in inputs:
            forced += int((inputs["document_ids"].diff() != 0).sum(1).max())
        config = self.accelerator.unwrap_model(self.model).config
        return most_chunks(inputs["input_ids"].shape[1], config.chunk_size, forced)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make AdamW, or Muon with AdamW."""
        if self.optimizer is None and self.config.training.optimizer == "muon":
            training, trained = self.config.training, model or self.model
            matrices, others, vectors = split_parameters(trained)  # type: ignore[arg-type]
            self.optimizer = MuonWithAdamW(
                matrices,
                [
                    {"params": others, "weight_decay": training.weight_decay},
                    {"params": vectors, "weight_decay": 0.0},
                ],
                lr=training.learning_rate,
                betas=training.betas,
                weight_decay=training.weight_decay,
                fused=self.args.device.type == "cuda",
            )
        return super().create_optimizer() if model is None else super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make the schedule of `schedules.learning_rate`."""
        if self.lr_scheduler is None:
            training = self.config.training
            self.lr_scheduler = LambdaLR(
                self.optimizer if optimizer is None else optimizer,  # type: ignore[arg-type]
                lambda step: schedules.learning_rate(step, training) / training.learning_rate,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return the matrices: norms and biases have no weight decay."""
        return [name for name, parameter in model.named_parameters() if parameter.dim() >= 2]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Complete a training record with speed and retrieval, and stop if the loss is not finite.

        Raises:
            DivergedError: The mean loss since the last record is NaN or infinite.
        """
        if "loss" in logs:
            steps = self.state.global_step - self._window_start
            loss = self.accelerator.reduce(self._window_loss.clone(), "mean").item() / steps
            if weight := self.config.retrieval.evidence_loss:
                evidence = self.accelerator.reduce(self._window_evidence.clone(), "mean").item()
                logs["retrieval_loss"] = evidence / steps
                loss -= weight * evidence / steps
            if not math.isfinite(loss):
                raise self._diverged(f"The loss is {loss}")
            logs["loss"] = loss
            logs["tokens"] = self.state.global_step * self.tokens_per_step
            logs["tokens_per_second"] = self.throughput.read()
            self._window_loss.zero_()
            self._window_evidence.zero_()
            self._window_start = self.state.global_step
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate; the time is not counted as training."""
        with self.throughput.paused():
            return super().evaluate(*args, **kwargs)

    @torch.no_grad()
    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None, None]:
        """Return the loss of a batch; logits would take gigabytes and nothing reads them."""
        # a graph that records no gradients would be compiled for evaluation alone
        gradients = torch.set_grad_enabled(self.config.training.compile)
        with gradients, self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    def _get_output_dir(self, trial: Any) -> str:
        # where checkpoint-<step> is written; published under its own name once it is complete
        return str(self.output / UNFINISHED)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if not self._all_finite():
            raise self._diverged("The weights or the loss are not finite")
        unfinished = self.output / UNFINISHED
        with self.throughput.paused(), naming_full_disk(self.output):
            try:
                if self.is_world_process_zero():
                    remove(unfinished)
                self.accelerator.wait_for_everyone()
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if self.is_world_process_zero():
                    step = self.state.global_step
                    publish_checkpoint(unfinished / f"{PREFIX}{step}", self.output, step)
                    remove_old_checkpoints(self.output, self.config.training.keep_checkpoints)
            finally:
                if self.is_world_process_zero():
                    remove(unfinished)
            self.accelerator.wait_for_everyone()

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        window = {
            "loss": self._window_loss.item(),
            "evidence": self._window_evidence.item(),
            "start": self._window_start,
        }
        self._window_file(output_dir).write_text(json.dumps(window), encoding="utf-8")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        with reading(checkpoint):
            super()._load_rng_state(checkpoint)
            self._window_start = self.state.global_step
            # absent for a process that the interrupted run did not have
            if self._window_file(checkpoint).is_file():
                window = json.loads(self._window_file(checkpoint).read_text(encoding="utf-8"))
                self._window_loss.fill_(window["loss"])
                self._window_evidence.fill_(window.get("evidence", 0.0))
                self._window_start = window["start"]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any) -> None:
        with reading(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, *args)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with reading(checkpoint):
                super()._load_optimizer_and_scheduler(checkpoint)

    def _window_file(self, checkpoint: str) -> Path:
        return Path(checkpoint) / f"loss_window_{self.args.process_index}.json"

    def _all_finite(self) -> bool:
        bad = (~torch.isfinite(self._window_loss)).float()
        model: nn.Module = self.model  # type: ignore[assignment]
        for parameter in model.parameters():
            local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
            bad += (~torch.isfinite(local)).any()
        return self.accelerator.reduce(bad, "sum").item() == 0

    def _diverged(self, what: str) -> DivergedError:
        good, _ = newest_checkpoint(self.output)
        kept = f"the last good checkpoint is {good}" if good else "no checkpoint was saved before"
        return DivergedError(
            f"{what} at step {self.state.global_step}; {kept}. Lower training.learning_rate or "
            "training.max_grad_norm, then start again or use --resume."
        )
