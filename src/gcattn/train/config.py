"""Everything one training run needs, read from a YAML file: the first step of `gcattn train`."""

import inspect
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from gcattn.data.needle_tasks.plan import NeedlePlan
from gcattn.train.typed_yaml import (
    PathText,
    check_keys,
    convert,
    from_mapping,
    read_yaml,
    shorten,
)

# far above what a run can use, far below what overflows
MOST = 10**12
MOST_TOKENS_PER_STEP = 2**28
MOST_WORKERS = 128
MOST_RETRIEVED = 2**16
MOST_SPREAD = 1_000_000
MOST_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """Which model is trained: a preset with changes, or a saved model to continue from."""

    preset: str | None = None
    """`drt_tiny`, `drt_12m`, `drt_34m`, `drt_128m`, `drt_350m` or `paper_128m`."""
    from_: PathText | None = None
    """Folder of a saved model whose weights training starts from; excludes `preset`."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Every other key of the section: fields of DRTConfig."""

    def __post_init__(self) -> None:
        if (self.preset is None) == (self.from_ is None):
            raise ValueError("The section 'model' needs one of the keys preset and from.")


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """Token shards and how rows are cut from them."""

    train: PathText
    """Folder of token shards."""
    validation: PathText | None = None
    """Folder of token shards; without it nothing is evaluated."""
    sequence_length: int
    """Tokens per row; the paper's models have 16,380."""
    documents: Literal["ignore", "pack", "separate"] = "ignore"
    """Rows run over document ends (the paper's way), keep documents apart, or hold one document."""
    library_rate: float = 0.0
    """Share of the rows that are read as a memory of files: windows, positions and chunks begin
    anew where a document does, and only retrieval reaches the documents before it. With `tasks`,
    the needles of such a row lie in files, and its questions in conversations after the files.
    Needs `documents: ignore`."""
    loss: Literal["all", "answers"] = "all"
    """"answers": rows are whole examples with labels on answers alone (`gcattn finetune`); their
    chunks close where prompts close them. Needs `documents: pack`."""
    close_chunks_early: float = 0.0
    """Probability, per token, that the chunk closes after it; training rows only."""

    def __post_init__(self) -> None:
        _within(2, MOST, "data.sequence_length", self.sequence_length)
        if not 0 <= self.close_chunks_early < 1:
            raise ValueError(
                f"data.close_chunks_early must lie in [0, 1), got {self.close_chunks_early}."
            )
        if not 0 <= self.library_rate <= 1:
            raise ValueError(f"data.library_rate must lie in [0, 1], got {self.library_rate}.")
        if self.library_rate and self.documents != "ignore":
            raise ValueError(
                "data.library_rate above 0 needs data.documents to be 'ignore', got "
                f"{self.documents!r}."
            )


@dataclass(frozen=True, kw_only=True)
class TrainingSection:
    """Optimizer, schedule and rhythm of the run."""

    steps: int
    """Optimizer steps."""
    batch_size: int
    """Rows per device and forward pass."""
    gradient_accumulation: int = 1
    """Forward passes per optimizer step."""
    learning_rate: float = 2e-3
    """Peak, reached at the end of the warm-up."""
    min_learning_rate: float = 4e-4
    """End of the cosine."""
    warmup: float = 0.02
    """Fraction of the steps when below 1, else a number of steps."""
    weight_decay: float = 0.1
    """Of matrices; norms have none."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """"muon": the matrices inside the layers are updated by Muon, the rest by AdamW."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """"auto": bf16 on GPUs that have it, else fp32. Weights are stored in fp32 either way."""
    compile: bool = False
    """Compile the layers (torch.compile): slower to start, then faster. Worth it on a GPU."""
    gradient_checkpointing: bool = False
    """Recompute layers in the backward pass instead of storing them."""
    seed: int = 0
    """Of the weights, the order of the rows and the retrieval noise."""
    eval_every: int = 500
    """Steps between evaluations; 0 evaluates at the end only."""
    eval_batches: int = 8
    """Validation batches per evaluation and device."""
    save_every: int = 500
    """Steps between checkpoints; 0 saves at the end only."""
    keep_checkpoints: int = 2
    """Older checkpoints are deleted."""
    log_every: int = 10
    """Steps averaged into one line of the log."""
    num_workers: int = 0
    """Processes that read data, per device."""
    fsdp: bool = False
    """Shard weights and optimizer over the GPUs (FSDP2) instead of copying them (DDP)."""

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size", "gradient_accumulation", "eval_batches")
        for name in (*counts, "keep_checkpoints", "log_every"):
            _within(1, MOST, f"training.{name}", getattr(self, name))
        numbers = ("learning_rate", "min_learning_rate", "weight_decay", "max_grad_norm")
        for name in ("eval_every", "save_every", "warmup", *numbers):
            _within(0, MOST, f"training.{name}", getattr(self, name))
        _within(0, MOST_WORKERS, "training.num_workers", self.num_workers)
        _within(0, MOST_SEED, "training.seed", self.seed)
        if self.learning_rate <= 0 or self.min_learning_rate > self.learning_rate:
            raise ValueError(
                "training.learning_rate must be above 0 and at least training.min_learning_rate, "
                f"got {self.learning_rate} and {self.min_learning_rate}."
            )
        if self.warmup >= 1 and not self.warmup.is_integer():
            raise ValueError(
                f"training.warmup must be a fraction below 1 or whole steps, got {self.warmup}."
            )
        if self.fsdp and self.optimizer == "muon":
            raise ValueError(
                "training.optimizer is muon, which needs whole matrices; with training.fsdp use "
                "adamw."
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"training.betas must lie in [0, 1), got {list(self.betas)}.")


@dataclass(frozen=True, kw_only=True)
class TopKChange:
    """From `step` on, every chunk retrieves `top_k` chunks, or "all" that came before."""

    step: int
    top_k: int | Literal["all"]

    def __post_init__(self) -> None:
        _within(0, MOST, "retrieval.top_k_schedule: step", self.step)
        if self.top_k != "all":
            _within(1, MOST_RETRIEVED, "retrieval.top_k_schedule: top_k", self.top_k)


@dataclass(frozen=True, kw_only=True)
class RetrievalSection:
    """How retrieval changes while the model trains."""

    top_k_schedule: list[TopKChange] = field(default_factory=list)
    """Empty, or before its first step: the model's own `retrieval_top_k`."""
    noise_steps: int | None = None
    """The model's `retrieval_noise` ends after so many steps; without it, it continues."""
    temperature_spread: float = 1.0
    """Every landmark's scores are divided by a temperature of its own, drawn between 1 / spread and
    spread: answers then come out right whether the weights of the chunks are sharp or flat."""
    evidence_loss: float = 0.0
    """Weight of a loss that teaches retrievers which chunks answer the questions of `tasks`. 0: the
    language-model loss alone teaches them, as in the paper."""

    def __post_init__(self) -> None:
        _within(0, MOST, "retrieval.noise_steps", self.noise_steps or 0)
        if not 1 <= self.temperature_spread <= MOST_SPREAD:
            raise ValueError(
                f"retrieval.temperature_spread must lie between 1 (none) and {MOST_SPREAD:,}, "
                f"got {self.temperature_spread}."
            )
        _within(0, MOST, "retrieval.evidence_loss", self.evidence_loss)
        _rising([change.step for change in self.top_k_schedule], "retrieval.top_k_schedule")


@dataclass(frozen=True, kw_only=True)
class LengthChange:
    """From `step` on, rows are cut into pieces of `sequence_length` tokens."""

    step: int
    sequence_length: int


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    model: ModelSection
    data: DataSection
    training: TrainingSection
    retrieval: RetrievalSection = field(default_factory=RetrievalSection)
    tasks: NeedlePlan | None = None
    """Needle tasks in the training rows; without it rows are text alone."""
    curriculum: list[LengthChange] = field(default_factory=list)
    """Lengths before the full one; tokens per step stay the same, rows become more and shorter."""
    output: PathText
    """Folder of the run: log, checkpoints, and at the end the model."""

    def __post_init__(self) -> None:
        _rising([change.step for change in self.curriculum], "curriculum")
        for change in self.curriculum:
            _within(0, MOST, "curriculum: step", change.step)
            _within(2, MOST, "curriculum: sequence_length", change.sequence_length)
            if self.data.sequence_length % change.sequence_length:
                raise ValueError(
                    "curriculum: sequence_length must divide data.sequence_length = "
                    f"{self.data.sequence_length}, got {change.sequence_length}."
                )
        rows = self.training.batch_size * self.training.gradient_accumulation
        if rows * self.data.sequence_length > MOST_TOKENS_PER_STEP:
            raise ValueError(
                "training.batch_size x training.gradient_accumulation x data.sequence_length is "
                f"{rows * self.data.sequence_length:,} tokens a step on every device; at most "
                f"{MOST_TOKENS_PER_STEP:,} are possible."
            )
        if self.data.loss == "answers" and self.data.documents != "pack":
            raise ValueError("data.loss: answers needs data.documents to be 'pack'.")
        if self.tasks is not None and self.data.documents != "ignore":
            raise ValueError("tasks need data.documents to be 'ignore'.")
        if self.retrieval.evidence_loss and self.tasks is None:
            raise ValueError("retrieval.evidence_loss needs tasks, which know where answers are.")
        if self.curriculum and self.data.documents == "pack":
            raise ValueError("curriculum needs data.documents to be 'ignore' or 'separate'.")

    def as_dict(self) -> dict[str, Any]:
        """Return what `load_config` would read, with every default filled in."""
        tree = asdict(self)
        model = tree.pop("model")
        tree["training"]["betas"] = list(self.training.betas)
        section: dict[str, Any] = {"preset": model["preset"]}
        if model["from_"] is not None:
            section = {"from": model["from_"]}
        return {"model": section | model["overrides"], **tree}


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> TrainConfig:
    """Read a training configuration.

    Args:
        path: A YAML file with the sections of `TrainConfig`.
        overrides: Changes such as `training.steps=100`; values are YAML.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A key is unknown or missing, or a value is of the wrong type or out of range.
    """
    return config_from_tree(read_yaml(path, overrides))


def config_from_tree(tree: dict[str, Any]) -> TrainConfig:
    """Build a configuration from what its YAML file would hold.

    Raises:
        ValueError: As for `load_config`.
    """
    if isinstance(tree.get("model"), dict):
        tree = {**tree, "model": _gather_overrides(tree["model"])}
    return from_mapping(TrainConfig, tree, "")


def _gather_overrides(section: dict[str, Any]) -> dict[str, Any]:
    """Move the fields of DRTConfig in the section `model` below one key."""
    from gcattn.models import DRTConfig

    known = inspect.get_annotations(DRTConfig)
    if "landmark_token_id" in section:
        raise ValueError(
            "model.landmark_token_id is no field any more: the landmark has an embedding of its "
            "own, outside the vocabulary; leave the key out."
        )
    check_keys(section, ["preset", "from", *known], "model")
    own: dict[str, Any] = {k: section[k] for k in ("preset", "from") if k in section}
    overrides = {
        key: convert(value, known[key], f"model.{key}")
        for key, value in section.items()
        if key not in own
    }
    return {**own, "overrides": overrides}


def _within(least: int, most: int, name: str, value: float) -> None:
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")
    if value > most:
        raise ValueError(f"{name} must be at most {most:,}, got {shorten(value)}.")


def _rising(steps: list[int], name: str) -> None:
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise ValueError(f"{name} must list rising steps, got {steps}.")
