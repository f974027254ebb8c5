"""What is hidden in training rows: every knob of it, with its check, in one place."""

from collections.abc import Mapping
from dataclasses import dataclass

from gcattn.data.needle_tasks.tasks import NeedleTask

TEXT = "text"


@dataclass(frozen=True, kw_only=True)
class NeedlePlan:
    """Needles hidden in the training text, with questions about them."""

    mixture: dict[str, float]
    """Weight of each task (`TASK_NAMES`); `text` stands for rows without needles."""
    exercises_per_row: int = 4
    """Exercises in one row, as long as they fill no more than half of it; the first one may fill
    all of it."""
    question_break_rate: float = 0.0
    """Probability that chunks close before the last token of a question and eight tokens
    before, as they do when a model is asked to generate."""
    near_question_rate: float = 0.0
    """Probability that the needles of an exercise lie close to its questions, within a stretch of
    any order of magnitude. The others lie anywhere before them, so hardly ever in the same chunk or
    window, where nothing can be retrieved."""
    noisy_text_rate: float = 0.0
    """Probability that a row's text is corrupted: a share of its tokens is replaced by ids from a
    part of the vocabulary, from one id to all; share and part are drawn again for each row, and in
    half of them a line of up to 64 ids repeats itself. Needles and questions stay as they are, and
    only answers have a label; rows without needles are never corrupted. So what is read beside a
    needle is not always text that the model knows."""
    text_loss_share: float = 1.0
    """Share of the tokens outside answers that have a label, in rows with questions: 0.25 gives the
    answers four times the weight that they have with 1. Rows of text alone keep all labels."""
    needle_loss_share: float | None = None
    """The same for the tokens of needles and of prompts, which nobody can predict: with 0, a model
    does not learn to write them into its prose. None: `text_loss_share`."""

    def __post_init__(self) -> None:
        if not 1 <= self.exercises_per_row <= 10**6:
            raise ValueError(
                "exercises_per_row must be at least 1 and at most a million, got "
                f"{self.exercises_per_row}."
            )
        rates = ("question_break_rate", "near_question_rate", "noisy_text_rate")
        for name in (*rates, "text_loss_share", "needle_loss_share"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}.")
        try:
            read_mixture(self.mixture)
        except ValueError as error:
            raise ValueError(f"mixture is refused: {error}") from error

    @property
    def loss_shares(self) -> tuple[float, float]:
        """Share of the text and share of the needles and prompts that have a label."""
        needles = self.needle_loss_share
        return self.text_loss_share, self.text_loss_share if needles is None else needles


def read_mixture(mixture: Mapping[str, float]) -> tuple[dict[NeedleTask, float], float]:
    """Return the tasks with their weights, and the share of rows that are text alone.

    Raises:
        ValueError: A task is unknown, a weight is not above 0, or there is nothing.
    """
    for name, weight in mixture.items():
        if not isinstance(name, str):
            raise ValueError(f"A task must be named by text, got {name!r}.")
        if not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise ValueError(f"The weight of the task {name!r} must be above 0, got {weight!r}.")
    tasks = {NeedleTask.parse(n): float(w) for n, w in mixture.items() if n != TEXT}
    if not tasks:
        raise ValueError("The mixture must hold at least one needle task.")
    text = float(mixture.get(TEXT, 0))
    return tasks, text / (text + sum(tasks.values()))
