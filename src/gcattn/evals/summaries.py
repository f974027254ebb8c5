"""Summaries written with beam search, and their ROUGE against reference summaries."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.generation.logits_process import (
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
)

from gcattn.data.examples import Example
from gcattn.data.examples.encoding import encode_example, plain_backend
from gcattn.evals.cell_store import CellStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

ROUGE = ("rouge1", "rouge2", "rougeL")
_RESAMPLES = 1000
_SHOWN_SUMMARIES = 5
# sentences of a document that serve as a baseline summary
_LEAD_SENTENCES = 3


@dataclass(frozen=True)
class WrittenSummary:
    """A model's result on one document.

    Attributes:
        place: Origin of the document.
        reference: The reference summary.
        text: The summary that the model wrote.
        scores: F-measures of ROUGE-1, -2 and -L, 0 to 1.
        lead_scores: Those of the first three sentences of the document.
        num_tokens: Tokens of document and prompt.
        is_cut: Whether the document was cut to fit.
    """

    place: str
    reference: str
    text: str
    scores: dict[str, float]
    lead_scores: dict[str, float]
    num_tokens: int
    is_cut: bool


def evaluate_summaries(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
    *,
    most_tokens: int,
    most_new_tokens: int = 256,
    num_beams: int = 4,
    length_penalty: float = 1.0,
    no_repeat_ngram_size: int = 3,
    segment_length: int = 16_384,
    batch_size: int = 1,
    store: CellStore | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[WrittenSummary]:
    """Write a summary of every document and score it.

    Args:
        model: A causal language model in evaluation mode.
        tokenizer: Its tokenizer.
        examples: Documents with summaries.
        most_tokens: Maximum tokens of document and prompt; a longer document is cut.
        most_new_tokens: Maximum length of a summary, which otherwise ends with the text.
        num_beams: Beams of the search; 1 is greedy.
        length_penalty: Above 0 favours longer summaries, as in transformers.
        no_repeat_ngram_size: No sequence of so many tokens is written twice in a summary; 0 allows
            it. Unlike transformers' option of this name, it does not forbid what the document says.
        segment_length: Tokens of a document read by one call.
        batch_size: Documents summarized at a time.
        store: Keeps finished documents, which are not summarized again.
        on_progress: Called with the numbers of documents and tokens so far.
    """
    backend, scorer = plain_backend(tokenizer), _scorer()
    found: dict[int, WrittenSummary] = {}
    prompts: dict[int, tuple[np.ndarray, bool]] = {}
    for number, example in enumerate(examples):
        kept = store.load(f"document_{number}", 1) if store is not None else None
        if kept is not None:
            found[number] = WrittenSummary(**kept[0])
            continue
        (turn,) = example.turns
        asked = Example(example.place, example.document, (_unanswered(turn),), cuts=True)
        encoded = encode_example(backend, asked, most_tokens)
        prompts[number] = np.append(encoded.document, encoded.turns[0].prompt), encoded.is_cut
    # documents of similar length share a batch: little of it is padding
    waiting = sorted(prompts, key=lambda number: len(prompts[number][0]))
    for first in range(0, len(waiting), batch_size):
        batch = waiting[first : first + batch_size]
        texts = _summarize(
            model,
            tokenizer,
            [prompts[number][0] for number in batch],
            max_new_tokens=most_new_tokens,
            num_beams=num_beams,
            length_penalty=length_penalty if num_beams > 1 else 1.0,
            no_repeat_ngram_size=no_repeat_ngram_size,
            prefill_chunk_size=segment_length,
        )
        for number, text in zip(batch, texts, strict=True):
            example, (prompt, is_cut) = examples[number], prompts[number]
            reference = example.turns[0].answer.strip()
            found[number] = WrittenSummary(
                place=example.place,
                reference=reference,
                text=text,
                scores=_rouge(scorer, reference, text),
                lead_scores=_rouge(scorer, reference, _lead(example.document)),
                num_tokens=len(prompt),
                is_cut=is_cut,
            )
            if store is not None:
                store.save(f"document_{number}", [asdict(found[number])])
        if on_progress is not None:
            on_progress(len(found), sum(summary.num_tokens for summary in found.values()))
    return [found[number] for number in range(len(examples))]


def _unanswered(turn: Any) -> Any:
    return type(turn)(turn.prompt, "")


@torch.no_grad()
def _summarize(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[np.ndarray],
    *,
    no_repeat_ngram_size: int,
    **options: Any,
) -> list[str]:
    longest = max(map(len, prompts))
    ids = np.full((len(prompts), longest), tokenizer.pad_token_id)
    is_token = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = prompt
        is_token[row, longest - len(prompt) :] = 1
    processors = LogitsProcessorList()
    if no_repeat_ngram_size:
        processors.append(
            _WithoutPrompt(NoRepeatNGramLogitsProcessor(no_repeat_ngram_size), longest)
        )
    generator: Any = model
    written = generator.generate(
        torch.from_numpy(ids).to(model.device),
        attention_mask=torch.from_numpy(is_token).to(model.device),
        do_sample=False,
        logits_processor=processors,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )
    texts = tokenizer.batch_decode(written[:, longest:], skip_special_tokens=True)
    return [str(text).strip() for text in texts]


class _WithoutPrompt(LogitsProcessor):
    """Applies a processor as if the prompt had not been there: a summary may quote its document."""

    def __init__(self, processor: LogitsProcessor, prompt_length: int) -> None:
        self.processor = processor
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.processor(input_ids[:, self.prompt_length :], scores)
        return changed


def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE), use_stemmer=True)


def _rouge(scorer: Any, reference: str, text: str) -> dict[str, float]:
    return {name: score.fmeasure for name, score in scorer.score(reference, text).items()}


def _lead(document: str) -> str:
    return " ".join(re.split(r"(?<=[.!?])\s+", document.strip())[:_LEAD_SENTENCES])


def metrics(summaries: Sequence[WrittenSummary], seed: int) -> dict[str, Any]:
    """Return plain values for a result file: means times 100, with bootstrap intervals (95 %)."""
    return {
        "trials": len(summaries),
        "scores": {n: _bootstrap([s.scores[n] for s in summaries], seed) for n in ROUGE},
        "lead_scores": {n: _bootstrap([s.lead_scores[n] for s in summaries], seed) for n in ROUGE},
        "num_cut": sum(summary.is_cut for summary in summaries),
        "mean_tokens": float(np.mean([summary.num_tokens for summary in summaries])),
        "mean_words": float(np.mean([len(summary.text.split()) for summary in summaries])),
        "mean_reference_words": float(np.mean([len(s.reference.split()) for s in summaries])),
        "documents": [{"place": s.place, "scores": s.scores} for s in summaries],
        "samples": [asdict(summary) for summary in summaries[:_SHOWN_SUMMARIES]],
    }


def _bootstrap(values: Sequence[float], seed: int) -> dict[str, float]:
    """Return the mean of documents and the middle 95 % of the means of resampled ones."""
    scores = 100 * np.array(values)
    draws = np.random.default_rng(seed).integers(0, len(scores), (_RESAMPLES, len(scores)))
    low, high = np.percentile(scores[draws].mean(1), [2.5, 97.5])
    return {"mean": float(scores.mean()), "low": float(low), "high": float(high)}
