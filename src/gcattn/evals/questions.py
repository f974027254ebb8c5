"""Questions about documents: exact match of the line that the model writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from gcattn.data.examples import Example
from gcattn.data.examples.encoding import EncodedTurn, encode_example, plain_backend
from gcattn.data.ruler.sample import FixedText
from gcattn.evals.cell_store import CellStore
from gcattn.evals.greedy import read_contexts, write_greedily
from gcattn.evals.stream_reader import StreamReader
from gcattn.evals.wilson import wilson_interval

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# failed questions shown in a result
_SHOWN_FAILURES = 20


@dataclass(frozen=True)
class QuestionAnswer:
    """A model's result on one question.

    Attributes:
        place: Origin of the document.
        question: What was asked.
        expected: The answer.
        generated: The line that the model wrote.
        exact: Whether they are the same, ignoring surrounding spaces.
        num_tokens: Tokens of document and question.
    """

    place: str
    question: str
    expected: str
    generated: str
    exact: bool
    num_tokens: int


def evaluate_questions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
    *,
    segment_length: int,
    most_new_tokens: int = 64,
    store: CellStore | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[QuestionAnswer]:
    """Ask every question of every document, each as if it were the only one.

    A document is read once by a DRT, and by other models once for each question.

    Args:
        model: A causal language model in evaluation mode.
        tokenizer: Its tokenizer.
        examples: Documents with their questions.
        segment_length: Tokens of a document read by one call; bounds memory.
        most_new_tokens: Maximum length of an answer, which otherwise ends with its line.
        store: Keeps finished documents, which are not asked again.
        on_progress: Called with the numbers of documents asked about and of tokens so far.
    """
    backend = plain_backend(tokenizer)
    answers: list[QuestionAnswer] = []
    ends = {tokenizer.eos_token_id}

    def is_finished(tokens: list[int]) -> bool:
        return tokens[-1] in ends or "\n" in backend.decode([tokens[-1]])

    for number, example in enumerate(examples):
        kept = store.load(f"document_{number}", len(example.turns)) if store is not None else None
        if kept is not None:
            answers += [QuestionAnswer(**answer) for answer in kept]
        else:
            encoded = encode_example(backend, example, None)
            document = FixedText(encoded.document)
            own: list[QuestionAnswer] = []
            for turns, written in _written(
                model, document, encoded.turns, segment_length, most_new_tokens, is_finished
            ):
                for turn, tokens in zip(turns, written, strict=True):
                    text = tokenizer.decode(tokens, skip_special_tokens=True)
                    generated = str(text).split("\n")[0].strip()
                    expected = example.turns[len(own)].answer.strip()
                    own.append(
                        QuestionAnswer(
                            place=example.place,
                            question=_question_of(example.turns[len(own)].prompt),
                            expected=expected,
                            generated=generated,
                            exact=generated == expected,
                            num_tokens=document.num_tokens + len(turn.prompt),
                        )
                    )
            answers += own
            if store is not None:
                store.save(f"document_{number}", [asdict(answer) for answer in own])
        if on_progress is not None:
            on_progress(number + 1, sum(answer.num_tokens for answer in answers))
    return answers


def _written(
    model: PreTrainedModel,
    document: FixedText,
    turns: Sequence[EncodedTurn],
    segment_length: int,
    most_new_tokens: int,
    is_finished: Callable[[list[int]], bool],
) -> Iterator[tuple[Sequence[EncodedTurn], list[list[int]]]]:
    """Yield turns with their answers: all in one batch if rows can share a past."""
    from gcattn.models import DRTConfig

    is_drt = isinstance(model.config, DRTConfig)
    for group in [turns] if is_drt else [[turn] for turn in turns]:
        reader = StreamReader(model, 1, document.num_tokens)
        read_contexts(reader, [document], segment_length)
        if len(group) > 1:
            reader.fork(len(group))
        prompts = [turn.prompt for turn in group]
        yield group, write_greedily(reader, prompts, most_new_tokens, is_finished)


def _question_of(prompt: str) -> str:
    """Return the question within a prompt."""
    return prompt.strip().removeprefix("Question:").removesuffix("Answer:").strip()


def metrics(answers: Sequence[QuestionAnswer]) -> dict[str, Any]:
    """Return plain values for a result file."""
    exact = sum(answer.exact for answer in answers)
    return {
        "trials": len(answers),
        "exact": exact,
        "accuracy": exact / len(answers),
        "interval": list(wilson_interval(exact, len(answers))),
        "documents": len({answer.place for answer in answers}),
        "mean_tokens": mean(answer.num_tokens for answer in answers),
        "failed_samples": [asdict(a) for a in answers if not a.exact][:_SHOWN_FAILURES],
    }
