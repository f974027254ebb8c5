"""RULER's thirteen tasks by name."""

from __future__ import annotations

from random import Random

from gcattn.data.ruler.counting import draw_common_words, draw_frequent_words
from gcattn.data.ruler.needles import NeedleSetting, draw_needles
from gcattn.data.ruler.question_files import generated_pool
from gcattn.data.ruler.questions import draw_question
from gcattn.data.ruler.sample import RulerSample
from gcattn.data.ruler.source import RulerSource
from gcattn.data.ruler.tracking import draw_tracking

_NEEDLES = {
    "niah_single_1": NeedleSetting("noise"),
    "niah_single_2": NeedleSetting("text"),
    "niah_single_3": NeedleSetting("text", values="uuids"),
    "niah_multikey_1": NeedleSetting("text", num_keys=4),
    "niah_multikey_2": NeedleSetting("needles"),
    "niah_multikey_3": NeedleSetting("needles", keys="uuids", values="uuids"),
    "niah_multivalue": NeedleSetting("text", num_values=4),
    "niah_multiquery": NeedleSetting("text", num_keys=4, num_asked=4),
}
_HOPS = {"qa_1": 1, "qa_2": 2}
RULER_TASKS = (*_NEEDLES, "vt", "cwe", "fwe", *_HOPS)


def check_ruler_task(name: str) -> str:
    """Return the name of a task.

    Raises:
        ValueError: There is no such task.
    """
    if name not in RULER_TASKS:
        raise ValueError(f"task must be one of {', '.join(RULER_TASKS)}, got {name!r}.")
    return name


def draw_ruler_sample(
    task: str, source: RulerSource, *, length: int, seed: int, index: int
) -> RulerSample:
    """Draw the sample that the arguments stand for; equal arguments give equal samples.

    Args:
        task: One of `RULER_TASKS`.
        source: Tokenizer, haystack and documents.
        length: Tokens of context, question and what may be written; up to 127 fewer are used.
        seed: Fixes the samples.
        index: Which of them.

    Raises:
        ValueError: There is no such task, or `length` has no room for it.
    """
    check_ruler_task(task)
    rng = Random(f"{seed} {task} {length} {index}")
    if task in _NEEDLES:
        return draw_needles(rng, source, _NEEDLES[task], length)
    if task == "vt":
        return draw_tracking(rng, source, length)
    if task == "cwe":
        return draw_common_words(rng, source, length)
    if task == "fwe":
        return draw_frequent_words(rng, source, length)
    if task not in source.pools:
        source.pools[task] = generated_pool(seed, hops=_HOPS[task])
    return draw_question(rng, source, source.pools[task], length)
