"""An evaluation in cells: samples are read in batches, and finished cells are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from gcattn.evals.cell_store import CellStore


@dataclass(frozen=True)
class Cell:
    """The answers to all samples of one task and length; subclasses add other keys."""

    task: str
    length: int
    answers: tuple[Any, ...] = field(default=(), kw_only=True)

    @property
    def name(self) -> str:
        """Name of the file that keeps the cell."""
        return f"{self.task.replace(':', '-')}_{self.length}"


AnyCell = TypeVar("AnyCell", bound=Cell)
Sample = TypeVar("Sample")
Task = TypeVar("Task")


@dataclass(frozen=True, kw_only=True)
class CellRun:
    """How cells are evaluated.

    Attributes:
        num_samples: Samples of each cell.
        segment_length: Tokens of a context read by one call of the model; bounds memory.
        seed: Fixes all samples.
        batch_size: Samples of one task and length in a batch, which is faster for short contexts.
            Only a DRT takes more than one.
        store: Keeps finished cells, which are not evaluated again.
        on_progress: Called with the tokens read so far and in total.
        on_cell: Called after each cell that was evaluated, with all that are finished.

    Raises:
        ValueError: A number is below 1.
    """

    num_samples: int
    segment_length: int
    seed: int = 0
    batch_size: int = 1
    store: CellStore | None = None
    on_progress: Callable[[int, int], None] | None = None
    on_cell: Callable[[Sequence[Any]], None] | None = None

    def __post_init__(self) -> None:
        if min(self.num_samples, self.segment_length, self.batch_size) < 1:
            raise ValueError(
                "num_samples, segment_length and batch_size must be at least 1, "
                f"got {self.num_samples}, {self.segment_length} and {self.batch_size}."
            )


def evaluate_cells(
    groups: Iterable[Sequence[AnyCell]],
    run: CellRun,
    *,
    draw: Callable[[AnyCell, int], Sample],
    answer: Callable[[Sequence[Sample], Sequence[int], Callable[[int], None]], list[Any]],
    answer_type: Callable[..., Any],
) -> list[AnyCell]:
    """Fill cells with answers.

    Args:
        groups: Cells without answers. Those of a group share a task and a length, and a batch may
            hold samples of several of them.
        run: How they are evaluated.
        draw: Returns one sample of a cell, by its number.
        answer: Returns the model's answers. Called with samples, their numbers, and a function to
            call with the number of tokens of each read.
        answer_type: Dataclass of an answer.

    Raises:
        ValueError: A length has no room for a task.
    """
    groups = list(groups)
    shortest = min(group[0].length for group in groups)
    for group in groups:  # a length without room fails before hours are spent on the others
        if group[0].length == shortest:
            draw(group[0], 0)
    total = run.num_samples * sum(cell.length for group in groups for cell in group)
    done = 0

    def on_tokens(num_tokens: int) -> None:
        nonlocal done
        done += num_tokens
        if run.on_progress is not None:
            run.on_progress(done, total)

    finished: list[AnyCell] = []
    for group in groups:
        length = group[0].length
        answers: list[list[Any]] = [[] for _ in group]
        missing = []
        for place, cell in enumerate(group):
            kept = run.store.load(cell.name, run.num_samples) if run.store is not None else None
            if kept is None:
                missing += [(place, index) for index in range(run.num_samples)]
            else:
                answers[place] = [answer_type(**one) for one in kept]
                on_tokens(length * run.num_samples)
        for start in range(0, len(missing), run.batch_size):
            batch = missing[start : start + run.batch_size]
            samples = [draw(group[place], index) for place, index in batch]
            before = done
            answered = answer(samples, [index for _, index in batch], on_tokens)
            on_tokens(before + length * len(batch) - done)  # what is left of samples' lengths
            for (place, _), one in zip(batch, answered, strict=True):
                answers[place].append(one)
                if len(answers[place]) < run.num_samples:
                    continue
                if run.store is not None:
                    run.store.save(group[place].name, [asdict(a) for a in answers[place]])
                if run.on_cell is not None:
                    run.on_cell(finished + _filled(group, answers, run.num_samples))
        finished += _filled(group, answers, run.num_samples)
    return finished


def _filled(
    group: Sequence[AnyCell], answers: Sequence[list[Any]], num_samples: int
) -> list[AnyCell]:
    """Return the cells of a group that have all their answers."""
    return [
        replace(cell, answers=tuple(own))
        for cell, own in zip(group, answers, strict=True)
        if len(own) == num_samples
    ]


def parse_tasks(
    text: str, groups: Mapping[str, Sequence[str]], parse: Callable[[str], Task]
) -> list[Task]:
    """Read names of tasks between commas, or the name of a group of them.

    Raises:
        ValueError: One is unknown, or two are the same.
    """
    tasks = [parse(name.strip()) for name in groups.get(text.strip()) or text.split(",")]
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"Tasks must differ, got {text!r}.")
    return tasks
