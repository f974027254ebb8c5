"""Loss by position of one trained model, with retrieval as trained, switched off and random.

The same weights with retrieval off or random say what is gained by *what* is retrieved, apart from
how the model was trained.

Shapes: N documents, P ranges of positions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gcattn.compare.suite import Suite, Text, suite_texts
from gcattn.data.token_shards import TokenShards
from gcattn.data.tokenizer_checks import check_vocabulary
from gcattn.evals.model_loading import load_causal_lm
from gcattn.evals.perplexity import choose_documents
from gcattn.evals.token_losses import token_losses
from gcattn.storage.whole import new_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# what the model retrieves: "learned" is what it was trained to
ABLATIONS = ("off", "random")
# tokens read by one call: few calls, and their logits take a gigabyte
READ_AT_ONCE = 16_384


def evaluate_model(folder: str | Path, suite: Suite, *, seed: int) -> dict[str, Any]:
    """Measure a saved model on every text of a suite.

    Returns:
        For every text the documents' names and, for each way to retrieve, the mean loss of each
        document in each range of positions: `{text: {"documents": […], "losses": {"learned":
        [N][P], "off": …, "random": …}}}`. Models that retrieve nothing have "learned" only, which
        is then their loss as it is.
    """
    model = load_causal_lm(str(folder), device="auto", dtype="auto")
    trained = getattr(model.config, "retrieval_method", "none")
    ways: dict[str, dict[str, Any]] = {"learned": {}} | (
        {way: {"retrieval_method": way} for way in ABLATIONS} if trained == "learned" else {}
    )
    results: dict[str, Any] = {
        name: {"documents": _documents(text), "losses": {}}
        for name, text in suite_texts(suite).items()
    }
    for way, changes in ways.items():
        if changes:
            model = load_causal_lm(str(folder), device="auto", dtype="auto", changes=changes)
        for name, text in suite_texts(suite).items():
            torch.manual_seed(seed)  # random retrieval draws
            results[name]["losses"][way] = losses_by_position(model, text, suite.positions).tolist()
    return results


def losses_by_position(model: PreTrainedModel, text: Text, ends: Sequence[int]) -> Tensor:
    """Return the mean loss of each document in each range of positions, float64 [N, P].

    A range holds the tokens that see at least the end of the range before and fewer than its own
    end; one that `text.length` does not reach is NaN.
    """
    rows = []
    for folder in text.data:
        shards = TokenShards(folder)
        check_vocabulary(shards, model.config.get_text_config().vocab_size)
        for number in choose_documents(shards, [text.length], None):
            document = torch.from_numpy(shards.document(number)[: text.length].astype("int64"))
            losses = token_losses(model, document, segment_length=READ_AT_ONCE)
            rows.append(_range_means(losses.double(), ends))
    return torch.stack(rows)


def _range_means(losses: Tensor, ends: Sequence[int]) -> Tensor:
    # losses[i] is that of token i + 1, which sees i + 1 tokens
    bounds = zip([1, *ends[:-1]], ends, strict=True)
    return torch.stack([losses[begin - 1 : end - 1].mean() for begin, end in bounds])


def _documents(text: Text) -> list[str]:
    return [
        f"{Path(folder).parent.name}/{Path(folder).name}:{number}"
        for folder in text.data
        for number in choose_documents(TokenShards(folder), [text.length], None)
    ]


def write_evaluation(file: Path, evaluation: dict[str, Any]) -> None:
    """Write an evaluation whole or not at all; ranges that no document reaches become null."""
    with new_file(file) as stream:
        stream.write(json.dumps(evaluation).replace("NaN", "null"))
