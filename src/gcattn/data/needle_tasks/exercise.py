"""What a needle task asks for: sentences to hide in a text, then questions about them."""

from dataclasses import dataclass

from gcattn.data.needle_tasks.phrases import TokenIds


@dataclass(frozen=True)
class Needle:
    """A sentence to hide; the answer repeats its tokens [start, stop)."""

    token_ids: TokenIds
    start: int
    stop: int


@dataclass(frozen=True)
class Question:
    """A question and its whole answer.

    Attributes:
        prompt: What is read before the answer.
        answer: What must follow, token for token.
        closing: What ends the answer where text continues after it.
        evidence: Numbers of the needles that the answer repeats, counted over all groups.
    """

    prompt: TokenIds
    answer: TokenIds
    closing: TokenIds
    evidence: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt, answer and closing."""
        return len(self.prompt) + len(self.answer) + len(self.closing)


@dataclass(frozen=True)
class Exercise:
    """Needles and the questions asked after them, one after the other.

    Attributes:
        groups: Needles; those of one group keep their order in the text, groups may mix. The
            first group begins with the needle that a given depth is for.
        questions: At least one.
    """

    groups: tuple[tuple[Needle, ...], ...]
    questions: tuple[Question, ...]

    @property
    def needles(self) -> tuple[Needle, ...]:
        """The needles of all groups."""
        return tuple(needle for group in self.groups for needle in group)

    @property
    def num_tokens(self) -> int:
        """Tokens of all needles and questions, answers included."""
        needles = sum(len(needle.token_ids) for needle in self.needles)
        return needles + sum(question.num_tokens for question in self.questions)
