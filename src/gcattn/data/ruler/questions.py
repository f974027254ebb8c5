"""RULER's questions: documents of which one (`qa_1`) or two (`qa_2`) hold the answer."""

from __future__ import annotations

from random import Random

from gcattn.data.ruler.question_files import QuestionPool
from gcattn.data.ruler.sample import LENGTH_SPREAD, FixedText, RulerSample
from gcattn.data.ruler.source import RulerSource, whole

NUM_NEW_TOKENS = 32
_INSTRUCTION = (
    "Answer the question based on the given documents. Only give me the answer and do not output "
    "any other words."
)


def draw_question(rng: Random, source: RulerSource, pool: QuestionPool, length: int) -> RulerSample:
    """Draw a sample of at most `length` tokens: the documents of an answer among others.

    Others are read again, in another order, where a pool is too small for the length.

    Raises:
        ValueError: The length has no room for the documents of the answer.
    """
    asked = rng.choice(pool.questions)
    opening = source.encode(f"{_INSTRUCTION}\n\nThe following are given documents.\n\n")
    prompt = source.encode(f"\n\n{_INSTRUCTION}\n\nQuestion: {asked.question}\nAnswer:")
    room = length - NUM_NEW_TOKENS - len(opening) - len(prompt)
    chosen = list(asked.documents)
    sizes = list(map(len, source.encode_all(pool.documents)))
    # a heading counts too, with a number of as many digits as there can be
    most_documents = max(room, 1) // max(min(sizes), 1) + 1
    heading = len(source.encode(f"\n\nDocument {most_documents}:\n"))

    room -= sum(heading + sizes[number] for number in chosen)
    if room < 0:
        raise ValueError(
            f"A question needs a length of at least {length - room} tokens, got {length}."
        )
    room -= rng.randrange(max(1, min(LENGTH_SPREAD, room)))
    others = [number for number in range(len(pool.documents)) if number not in asked.documents]
    while others:
        rng.shuffle(others)
        added = 0
        for number in others:
            if heading + sizes[number] <= room:
                chosen.append(number)
                room -= heading + sizes[number]
                added += 1
        if added < len(others):
            break
    rng.shuffle(chosen)
    documents = [
        f"{'' if place == 1 else chr(10) * 2}Document {place}:\n{pool.documents[number]}"
        for place, number in enumerate(chosen, 1)
    ]
    context = FixedText(whole([opening, *source.encode_all(documents)]))
    return RulerSample(context, prompt, asked.answers, "any", NUM_NEW_TOKENS)
