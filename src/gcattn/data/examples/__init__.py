"""Documents with prompts and answers: what fine-tuning teaches and its evaluations ask.

`read_questions` and `read_summaries` read them, `prepare_examples` encodes them into token shards
whose mask marks the answers, and `AnswerRows` makes training rows of these.
"""

from gcattn.data.examples.example import Example, Turn
from gcattn.data.examples.example_shards import prepare_examples
from gcattn.data.examples.question_reader import read_questions
from gcattn.data.examples.summary_reader import read_summaries

__all__ = ["Example", "Turn", "prepare_examples", "read_questions", "read_summaries"]
