"""A document and what is asked of it: the one form of text that is taught and asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """What is asked and what must follow.

    Attributes:
        prompt: Follows the document, or the turn before, as it stands.
        answer: Follows the prompt; its end is the end of the line, or of the text.
    """

    prompt: str
    answer: str


@dataclass(frozen=True)
class Example:
    """A document with turns after it.

    Attributes:
        place: Where it comes from, for messages.
        document: What is read first.
        turns: At least one.
        cuts: Whether a document that is too long may lose its end.
    """

    place: str
    document: str
    turns: tuple[Turn, ...]
    cuts: bool


def question_turn(question: str, answer: str) -> Turn:
    """Return the turn of a question: its answer is one line."""
    return Turn(question_prompt(question), f" {answer}\n")


def question_prompt(question: str) -> str:
    """Return how a question is put after a document."""
    return f"\n\nQuestion: {question}\nAnswer:"


SUMMARY_PROMPT = "\n\nSummary:"


def summary_turn(summary: str) -> Turn:
    """Return the turn that asks for a summary: it ends with the text."""
    return Turn(SUMMARY_PROMPT, f" {summary}")
