"""A question as `gcattn ask` puts it, of the tasks that state and ask in natural language."""

from gcattn.data.examples.example import question_prompt
from gcattn.data.needle_tasks.exercise import Question
from gcattn.data.needle_tasks.vocabulary import NeedleVocabulary


def natural_question(words: NeedleVocabulary, asked: str, answer: str, needle: int) -> Question:
    """Return a question for what the needle of a number says."""
    prompt, ids = words.encode(question_prompt(asked)), words.encode(f" {answer}")
    blank = words.number_opening
    # a space of its own tells nothing: to evaluation it is a part of the question
    if blank and words.split != "train" and ids[: len(blank)] == blank:
        prompt, ids = prompt + blank, ids[len(blank) :]
    return Question(prompt, ids, words.encode("\n"), (needle,))
