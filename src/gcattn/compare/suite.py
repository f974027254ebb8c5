"""What is compared, read from a YAML file: models, learning rates, seeds and texts.

Every run is the suite's training configuration with the changes of its model, so peers share data,
rows, schedule and evaluation, and differ in nothing that the file does not say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcattn.train.config import TrainConfig, config_from_tree
from gcattn.train.typed_yaml import from_mapping, read_yaml


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """One model of the comparison."""

    changes: dict[str, Any] = field(default_factory=dict)
    """Sections of a training configuration, laid over the suite's."""
    learning_rates: list[float] | None = None
    """Instead of the suite's."""
    seeds: list[int] | None = None
    """Instead of the suite's."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Held-out documents of one kind."""

    data: list[str]
    """Folders of token shards."""
    length: int
    """Tokens read of every document that has so many."""
    selects: bool = True
    """Whether its loss takes part in choosing a model's learning rate; false for test data."""

    def __post_init__(self) -> None:
        if self.length < 2 or not self.data:
            raise ValueError(
                f"texts: need at least one folder and a length of 2, got {self.data}, "
                f"{self.length}."
            )


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One comparison."""

    name: str
    """Of the result: compare-<name>.json."""
    base: dict[str, Any]
    """A training configuration without output."""
    models: dict[str, Any]
    """By name: see `ComparedModel`."""
    texts: dict[str, Any]
    """By name: see `Text`."""
    learning_rates: list[float]
    """Each model is trained with each; its best one counts, and all are reported. The end of the
    cosine keeps its ratio to the peak."""
    seeds: list[int] = field(default_factory=lambda: [0])
    positions: list[int] = field(default_factory=lambda: [512, 2048, 4096, 8192, 16384])
    """Ends of the ranges of positions that losses are averaged over."""
    window: str
    """The model that the gap begins with: a sliding window alone."""
    full: str | None = None
    """The model that it ends with: full attention."""

    def __post_init__(self) -> None:
        for name in filter(None, (self.window, self.full)):
            if name not in self.models:
                raise ValueError(
                    f"{name!r} is none of the models of the suite: {', '.join(self.models)}."
                )
        if sorted(set(self.positions)) != self.positions or min(self.positions, default=0) < 1:
            raise ValueError(f"positions must be rising and above 0, got {self.positions}.")
        if not self.learning_rates or not self.seeds:
            raise ValueError("learning_rates and seeds must name at least one value each.")


@dataclass(frozen=True)
class Run:
    """One model trained once."""

    model: str
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """Name of the run and of its folder."""
        return f"{self.model}-lr{self.learning_rate:g}-seed{self.seed}"


def load_suite(path: str | Path, overrides: Iterable[str] = ()) -> Suite:
    """Read a suite and check every training configuration in it.

    Args:
        path: A YAML file with the fields of `Suite`.
        overrides: Changes such as `base.training.steps=100`; values are YAML.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A key is unknown or missing, or a value is of the wrong type or out of range.
    """
    suite = from_mapping(Suite, read_yaml(path, overrides), "")
    for run in suite_runs(suite):
        training_config(suite, run, Path("unused"))
    suite_texts(suite)
    return suite


def suite_models(suite: Suite) -> dict[str, ComparedModel]:
    """Return the models by name."""
    return {
        name: from_mapping(ComparedModel, section or {}, f"models.{name}")
        for name, section in suite.models.items()
    }


def suite_texts(suite: Suite) -> dict[str, Text]:
    """Return the texts by name."""
    return {
        name: from_mapping(Text, section, f"texts.{name}") for name, section in suite.texts.items()
    }


def suite_runs(suite: Suite) -> list[Run]:
    """Return every run: all models with their first rate and seed, then with the next."""
    tries = {
        name: [
            Run(name, rate, seed)
            for seed in model.seeds or suite.seeds
            for rate in model.learning_rates or suite.learning_rates
        ]
        for name, model in suite_models(suite).items()
    }
    most = max(map(len, tries.values()))
    return [runs[i] for i in range(most) for runs in tries.values() if i < len(runs)]


def training_config(suite: Suite, run: Run, folder: Path) -> TrainConfig:
    """Return the training configuration of a run whose output is `folder`."""
    tree = _laid_over(suite.base, suite_models(suite)[run.model].changes)
    training = dict(tree.get("training", {}))
    peak = training.get("learning_rate", run.learning_rate)
    training["min_learning_rate"] = (
        training.get("min_learning_rate", 0.1 * peak) * run.learning_rate / peak
    )
    training |= {"learning_rate": run.learning_rate, "seed": run.seed}
    return config_from_tree({**tree, "training": training, "output": str(folder)})


def _laid_over(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for key, value in changes.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            value = _laid_over(below, value)
        merged[key] = value
    return merged
