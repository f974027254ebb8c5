"""Needle tasks: sentences hidden in a long text, and questions that need them.

`NeedleTask` says what is hidden and asked, `NeedleVocabulary` draws keys and values, `Haystack` is
the text around them; `draw_sample` makes evaluation samples of any length, `draw_sharing_samples`
several of one context, and `NeedleRows` training rows by a `NeedlePlan`.
"""

from gcattn.data.needle_tasks.exercise import Exercise, Needle, Question
from gcattn.data.needle_tasks.haystack import Haystack
from gcattn.data.needle_tasks.plan import NeedlePlan
from gcattn.data.needle_tasks.rows import NeedleRows
from gcattn.data.needle_tasks.sample import NeedleSample, draw_sample
from gcattn.data.needle_tasks.shared_context import draw_sharing_samples
from gcattn.data.needle_tasks.tasks import TASK_NAMES, NeedleTask
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary

__all__ = [
    "TASK_NAMES",
    "Exercise",
    "Haystack",
    "Needle",
    "NeedlePlan",
    "NeedleRows",
    "NeedleSample",
    "NeedleTask",
    "NeedleVocabulary",
    "Question",
    "draw_sample",
    "draw_sharing_samples",
]
