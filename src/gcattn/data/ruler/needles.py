"""RULER's eight needle tasks: keys, values and distractors in noise, in prose, or among their like.

After Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?"
(2024), section 3 and appendix; the prompts are that benchmark's, everything else is made here.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from gcattn.data.needle_tasks.interleaved_text import InterleavedText
from gcattn.data.needle_tasks.phrases import TokenIds
from gcattn.data.ruler.sample import (
    LENGTH_SPREAD,
    FixedText,
    ReadableText,
    RepeatedText,
    RulerSample,
)
from gcattn.data.ruler.source import RulerSource, whole
from gcattn.data.words.templates import joined

NUM_NEW_TOKENS = 128
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
_DIGITS = 7
_BATCH = 4096


@dataclass(frozen=True)
class NeedleSetting:
    """What one of the needle tasks hides, and where.

    Attributes:
        haystack: The same sentence over and over, text, or needles that are not asked for.
        keys: What keys are.
        values: What values are.
        num_keys: Keys that are stated in noise or text.
        num_values: Values of each.
        num_asked: Keys that are asked for.
    """

    haystack: Literal["noise", "text", "needles"]
    keys: Literal["words", "uuids"] = "words"
    values: Literal["numbers", "uuids"] = "numbers"
    num_keys: int = 1
    num_values: int = 1
    num_asked: int = 1


def draw_needles(
    rng: Random, source: RulerSource, setting: NeedleSetting, length: int
) -> RulerSample:
    """Draw a sample of at most `length` tokens, what may be written included.

    Raises:
        ValueError: The length has no room for it.
    """
    taken: set[str] = set()
    keys = [_new(rng, source, setting.keys, taken) for _ in range(setting.num_keys)]
    values = [
        [_new(rng, source, setting.values, taken) for _ in range(setting.num_values)] for _ in keys
    ]
    needles = [
        _needle(setting.values, key, value)
        for key, own in zip(keys, values, strict=True)
        for value in own
    ]
    rng.shuffle(needles)
    asked = keys[: setting.num_asked]
    references = [value for own in values[: setting.num_asked] for value in own]
    kind, is_one = setting.values, len(references) == 1
    noun = kind[:-1] if is_one else kind
    instruction = source.encode(
        f"{'A' if is_one else 'Some'} special magic {noun} {'is' if is_one else 'are'} hidden "
        "within the following text. Make sure to memorize it. I will quiz you about the "
        f"{noun} afterwards.\n"
    )
    query = joined(asked)
    verb = "What is the" if is_one else "What are all the"
    prompt = source.encode(
        f"\n{verb} special magic {noun} for {query} mentioned in the provided text? The special "
        f"magic {noun} for {query} mentioned in the provided text {'is' if is_one else 'are'}"
    )
    room = length - NUM_NEW_TOKENS - len(prompt) - len(instruction)
    room -= rng.randrange(max(1, min(LENGTH_SPREAD, length // 8)))
    front = " " if setting.haystack == "text" else "\n"
    encoded = source.encode_all([front + needle for needle in needles])
    num_text = room - sum(map(len, encoded))
    if num_text < 0:
        raise ValueError(
            f"The task needs a length of at least {length - num_text} tokens, got {length}."
        )
    context = _context(rng, source, setting, instruction, encoded, num_text, taken)
    return RulerSample(context, prompt, tuple(references), "all", NUM_NEW_TOKENS)


def _context(
    rng: Random,
    source: RulerSource,
    setting: NeedleSetting,
    instruction: TokenIds,
    needles: list[TokenIds],
    num_text: int,
    taken: set[str],
) -> ReadableText:
    """Put the needles into as much haystack as there is room for."""
    if setting.haystack == "text":
        start = rng.randrange(source.haystack.num_tokens)
        gaps = sorted(rng.randint(0, num_text) for _ in needles)
        inserts = [(0, instruction)]
        inserts += [
            (source.sentence_end(start, gap, num_text), needle)
            for gap, needle in zip(gaps, needles, strict=True)
        ]
        return InterleavedText(source.haystack, start, num_text, inserts)
    if setting.haystack == "noise":
        return in_noise(rng, source, instruction, needles, num_text)
    lines: list[TokenIds] = []
    while num_text > 0:
        batch = source.encode_all(
            [
                "\n"
                + _needle(
                    setting.values,
                    _new(rng, source, setting.keys, taken),
                    _new(rng, source, setting.values, taken),
                )
                for _ in range(min(_BATCH, num_text // 16 + 1))
            ]
        )
        for line in batch:
            num_text -= len(line)
            if num_text < 0:
                break
            lines.append(line)
    for needle in needles:
        lines.insert(rng.randint(0, len(lines)), needle)
    return FixedText(whole([instruction, *lines]))


def in_noise(
    rng: Random,
    source: RulerSource,
    opening: TokenIds,
    needles: list[TokenIds],
    num_text: int,
) -> InterleavedText:
    """Put needles, in their order, between the lines of a text that says the same over and over."""
    noise = source.encode("\n" + NOISE)
    num_lines = num_text // len(noise)
    places = sorted(rng.randint(0, num_lines) for _ in needles)
    inserts = [(0, opening)]
    inserts += [(place * len(noise), needle) for place, needle in zip(places, needles, strict=True)]
    return InterleavedText(RepeatedText(noise), 0, num_lines * len(noise), inserts)


def _needle(kind: str, key: str, value: str) -> str:
    return f"One of the special magic {kind} for {key} is: {value}."


def _new(rng: Random, source: RulerSource, kind: str, taken: set[str]) -> str:
    """Draw a key or a value of the validation split that was not drawn before."""
    while True:
        if kind == "numbers":
            text = str(rng.randrange(10 ** (_DIGITS - 1), 10**_DIGITS))
        else:
            text = source.texts.draw(rng, {"words": "hyphenated", "uuids": "uuid"}[kind])[0]
        if text not in taken:
            taken.add(text)
            return text
