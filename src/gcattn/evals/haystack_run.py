"""An evaluation in a haystack: its text, its finished cells and its result file.

The result is written after every cell, and finished cells are kept beside it until it is complete:
the same call resumes an interrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcattn.data.shard_index import INDEX_FILE, sha256_of
from gcattn.data.tokenizer_loading import load_tokenizer
from gcattn.evals.cell_store import CellStore
from gcattn.evals.needle_cells import weights_fingerprint
from gcattn.evals.needle_haystack import open_haystack
from gcattn.results import read_result, write_result
from gcattn.storage.writable import check_writable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from gcattn.data.needle_tasks import Haystack


@dataclass(frozen=True)
class HaystackRun:
    """What an evaluation needs while it runs, and where its scores go."""

    text: Haystack
    tokenizer: PreTrainedTokenizerFast
    store: CellStore
    config: dict[str, Any]
    out: Path
    samples: int
    # a whole result of an earlier run stays until there is a whole one in its place
    keeps_earlier: bool

    def write(self, metrics: dict[str, Any]) -> Path:
        """Write the result of all cells."""
        return write_result(
            self.out.stem,
            self.config,
            metrics,
            folder=self.out.parent,
            seed=self.config["seed"],
            trials=self.samples,
        )

    def write_unfinished(self, metrics: dict[str, Any]) -> None:
        """Write the result so far, unless a whole one would be lost."""
        if not self.keeps_earlier:
            self.write(metrics)


@contextmanager
def haystack_run(
    model: PreTrainedModel,
    source: str,
    haystack: Path | None,
    out: Path,
    *,
    seed: int,
    samples: int,
    asked: Mapping[str, Any],
    changes: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
) -> Iterator[HaystackRun]:
    """Open what an evaluation reads and writes; nothing is made before its first cell.

    Args:
        model: The model that is asked.
        source: Where it came from; its tokenizer is there.
        haystack: Token shards; None for synthetic text, which exists while the block runs.
        out: Result file, ending in .json.
        seed: Fixes all samples.
        samples: Of each cell.
        asked: What is asked, for the result; `num_cells` says how many cells make it whole.
        changes: Fields of the model's configuration that it was not saved with.
        settings: What finished cells depend on beside weights, text, seed and dtype.

    Raises:
        FileNotFoundError: There are no such shards, or no tokenizer beside the model.
        ValueError: The shards were made with another tokenizer, or `out` does not end in .json or
            has cells of another evaluation beside it.
    """
    keeps_earlier = check_out(out)
    with open_haystack(haystack, source, model, seed) as text:
        check_writable(out.parent)
        depends = {
            "weights_sha256": weights_fingerprint(model),
            "haystack_sha256": sha256_of(text.shards.folder / INDEX_FILE),
            "haystack_tokens": text.num_tokens,
            "seed": seed,
            "dtype": str(model.dtype).removeprefix("torch."),
            **(settings or {}),
        }
        config = {
            "model": source,
            "model_type": model.config.model_type,
            "parameters": model.num_parameters(),
            "haystack": "synthetic text" if haystack is None else str(haystack),
            "samples": samples,
            "memory_tier": getattr(model.config, "memory_tier", None),
            "changes": dict(changes),
            "device": str(model.device),
            **asked,
            **depends,
        }
        store = CellStore(out.with_suffix(".cells"), depends)
        tokenizer = load_tokenizer(text.shards.tokenizer_folder)
        yield HaystackRun(text, tokenizer, store, config, out, samples, keeps_earlier)


def check_out(out: Path) -> bool:
    """Return whether a result file holds every cell of an earlier evaluation.

    Raises:
        ValueError: The name does not end in .json, or the file is no result.
    """
    if out.suffix != ".json":
        raise ValueError(f"--out must end in .json, got {out}.")
    if not out.exists():
        return False
    result = read_result(out)
    held = len(result["metrics"].get("cells", ()))
    return bool(held == result["config"].get("num_cells", held))
