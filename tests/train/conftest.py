"""A tiny corpus and a tiny run, small enough that a test trains in a second."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from gcattn.data import TokenShardWriter
from gcattn.train.config import TrainConfig, load_config
from gcattn.train.run import run_training

SPECIAL = ["<|endoftext|>", "<|pad|>"]
VOCABULARY = [*SPECIAL, *(f"w{i}" for i in range(30))]


def tiny_tokenizer(vocabulary: list[str] = VOCABULARY) -> PreTrainedTokenizerFast:
    model = WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<|pad|>")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(model), eos_token=SPECIAL[0], pad_token=SPECIAL[1]
    )


def write_shards(
    folder: Path,
    num_documents: int,
    *,
    vocabulary: list[str] = VOCABULARY,
    extra_token: int | None = None,
) -> Path:
    """Documents of 50 to 150 tokens in which each token mostly decides the next."""
    generator = np.random.default_rng(num_documents)
    with TokenShardWriter(folder, tiny_tokenizer(vocabulary), "tiny") as writer:
        for _ in range(num_documents):
            steps = generator.choice([1, 2, 7], size=generator.integers(50, 150), p=[0.8, 0.1, 0.1])
            document = 2 + np.cumsum(steps) % 29
            if extra_token is not None:
                document[0] = extra_token
            writer.append(document, num_bytes=3 * len(document))
    return folder


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of training and validation shards."""
    folder = tmp_path_factory.mktemp("shards")
    return write_shards(folder / "train", 60), write_shards(folder / "validation", 8)


def tiny_run(shards: tuple[Path, Path], output: Path) -> dict[str, Any]:
    """Return what the configuration file of a tiny run holds."""
    return {
        "model": {"preset": "drt_tiny", "hidden_size": 16, "intermediate_size": 32},
        "data": {"train": str(shards[0]), "validation": str(shards[1]), "sequence_length": 64},
        "training": {
            "steps": 8,
            "batch_size": 2,
            "learning_rate": 0.01,
            "min_learning_rate": 0.001,
            "precision": "fp32",
            "eval_every": 4,
            "eval_batches": 2,
            "save_every": 4,
            "log_every": 1,
        },
        "output": str(output),
    }


@pytest.fixture
def tree(shards: tuple[Path, Path], tmp_path: Path) -> dict[str, Any]:
    return tiny_run(shards, tmp_path / "run")


@pytest.fixture(scope="session")
def trained_once(shards: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(tiny_run(shards, folder / "run")), encoding="utf-8")
    return run_training(load_config(file, ["training.steps=1"])).model_folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """Return a test's own copy of the model that one step of the tiny run leaves."""
    return Path(shutil.copytree(trained_once, tmp_path / "trained"))


@pytest.fixture
def config_file(tree: dict[str, Any], tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


@pytest.fixture
def make_config(config_file: Path) -> Callable[..., TrainConfig]:
    """Load the tiny run with overrides."""

    def make(*overrides: str) -> TrainConfig:
        return load_config(config_file, overrides)

    return make
