"""RULER's thirteen tasks, generated here for any tokenizer, haystack and length."""

from gcattn.data.ruler.question_files import QuestionPool, read_hotpotqa, read_squad
from gcattn.data.ruler.sample import RulerSample
from gcattn.data.ruler.source import RulerSource
from gcattn.data.ruler.tasks import RULER_TASKS, draw_ruler_sample

__all__ = [
    "RULER_TASKS",
    "QuestionPool",
    "RulerSample",
    "RulerSource",
    "draw_ruler_sample",
    "read_hotpotqa",
    "read_squad",
]
