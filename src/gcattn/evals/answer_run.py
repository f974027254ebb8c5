"""An evaluation of answers to examples: finished documents and the result file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcattn.data.shard_index import sha256_of
from gcattn.data.source_files import find_files
from gcattn.evals.cell_store import CellStore
from gcattn.evals.weights_fingerprint import weights_fingerprint
from gcattn.results import write_result
from gcattn.storage.writable import check_writable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class AnswerRun:
    """The state of a running evaluation, and where its scores go."""

    store: CellStore
    config: dict[str, Any]
    out: Path

    def finish(self, metrics: dict[str, Any], *, seed: int = 0, **labels: Any) -> Path:
        """Write the result and delete the finished documents kept for resuming."""
        file = write_result(
            self.out.stem,
            self.config | labels,
            metrics,
            folder=self.out.parent,
            seed=seed,
            trials=metrics["trials"],
        )
        self.store.remove()
        return file


def answer_run(
    model: PreTrainedModel,
    source: str,
    data: str,
    out: Path,
    *,
    split: str | None,
    changes: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> AnswerRun:
    """Open what an interrupted evaluation left; nothing is written before the first document.

    Args:
        model: The model that is asked.
        source: Where it came from.
        data: Source of the examples.
        out: Result file, ending in .json.
        split: Split of that source.
        changes: Fields of the model's configuration that it was not saved with.
        settings: What finished documents depend on beside weights, examples and dtype.

    Raises:
        ValueError: `out` does not end in .json, or has documents of another evaluation beside it.
    """
    if out.suffix != ".json":
        raise ValueError(f"--out must end in .json, got {out}.")
    check_writable(out.parent)
    files = find_files(data, split)
    depends = {
        "weights_sha256": weights_fingerprint(model),
        "data": data,
        "split": split,
        "data_sha256": None if files is None else [sha256_of(file) for file in files],
        "dtype": str(model.dtype).removeprefix("torch."),
        **settings,
    }
    config = {
        "model": source,
        "model_type": model.config.model_type,
        "parameters": model.num_parameters(),
        "memory_tier": getattr(model.config, "memory_tier", None),
        "changes": dict(changes),
        "device": str(model.device),
        **depends,
    }
    return AnswerRun(CellStore(out.with_suffix(".cells"), depends), config, out)
