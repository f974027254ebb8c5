"""A perplexity evaluation: losses by position, result file and plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcattn.data.tokenizer_checks import check_tokenizer_of_model
from gcattn.evals.length_result import LengthResult
from gcattn.evals.perplexity import evaluate_perplexity
from gcattn.evals.plot import plot_perplexity, short_name
from gcattn.evals.unigram import unigram_entropy
from gcattn.results import write_result
from gcattn.storage.writable import check_writable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gcattn.data import TokenShards


@dataclass(frozen=True)
class PerplexityRun:
    """The measured losses, and where they were written."""

    results: list[LengthResult]
    unigram_entropy: float
    file: Path
    picture: Path


def run_perplexity(
    model: PreTrainedModel,
    source: str,
    shards: TokenShards,
    data: Path,
    out: Path,
    *,
    lengths: Sequence[int],
    segment_length: int = 4096,
    max_documents: int | None = None,
    changes: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PerplexityRun:
    """Measure the losses of a model on documents, and write the result and its plot.

    Args:
        model: A causal language model in evaluation mode.
        source: Where it came from; its tokenizer is there.
        shards: The documents.
        data: Their folder, as named in the result and the plot.
        out: Result file, ending in .json; the plot goes beside it.
        lengths: Context lengths in tokens.
        segment_length: Tokens read at a time; bounds memory.
        max_documents: Maximum documents per length.
        changes: Fields of the model's configuration that it was not saved with.
        on_progress: Called with the tokens read so far and in total.

    Raises:
        ValueError: Model and documents do not fit each other, or no document has a length.
    """
    check_tokenizer_of_model(shards, source)
    check_writable(out.parent)
    # checks all tokens, so that an impossible one stops the run before the evaluation
    entropy = unigram_entropy(shards)
    results = evaluate_perplexity(
        model,
        shards,
        lengths,
        segment_length=segment_length,
        max_documents=max_documents,
        on_progress=on_progress,
    )
    config = {
        "model": source,
        "model_type": model.config.model_type,
        "parameters": model.num_parameters(),
        "data": str(data),
        "tokenizer": shards.tokenizer_name,
        "lengths": list(lengths),
        "segment_length": segment_length,
        "max_documents": max_documents,
        "memory_tier": getattr(model.config, "memory_tier", None),
        "changes": dict(changes or {}),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    metrics = {"unigram_entropy": entropy, "lengths": [result.as_dict() for result in results]}
    file = write_result(out.stem, config, metrics, folder=out.parent, seed=0, trials=1)
    picture = file.with_suffix(".png")
    plot_perplexity(results, f"{short_name(Path(source))} on {short_name(data)}", picture)
    return PerplexityRun(results, entropy, file, picture)
