"""A library answers, and says where its answers come from."""

from pathlib import Path

import pytest
import torch

from gcattn.library.asking import open_library, worded
from gcattn.library.making import append_to_library, build_library
from gcattn.library.sources import chunk_weights
from gcattn.ops.chunk_topk import ChunkSelection

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "gcattn-12m"
SECRETS = {"green lamp": "7718203", "old tower": "4401296", "quiet river": "9052837"}
TEXT = (
    "The road led past the mill and down to the water, where two boats lay in the grass.\n"
    "Nobody had used them since the winter, and the rain stood in both of them.\n"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if not CHECKPOINT.exists():
        pytest.skip("the source distribution holds no checkpoint")
    texts = tmp_path_factory.mktemp("texts")
    for number, (key, value) in enumerate(SECRETS.items()):
        lines = TEXT * number + f"The secret of {key} is {value}.\n" + TEXT * 3
        (texts / f"{number}.txt").write_text(lines)
    (texts / "other.html").write_text(f"<p>{TEXT * 2}</p>")
    memory = tmp_path_factory.mktemp("memories") / "texts"
    build_library(texts / "0.txt", memory, model=str(CHECKPOINT), device="cpu")
    rest = [texts / name for name in ("1.txt", "2.txt", "other.html")]
    append_to_library(rest, memory, device="cpu")
    return open_library(memory, device="cpu")


@pytest.mark.parametrize("number", range(3))
def test_a_needle_is_answered_with_its_file_and_line(library, number):
    key, value = list(SECRETS.items())[number]
    answer = library.ask(f"What is the secret of {key}?", max_new_tokens=12)
    assert answer.text == f"{value}."
    best = answer.sources[0]
    assert (Path(best.name).name, best.line) == (f"{number}.txt", 2 * number + 1)
    assert best.place.endswith(f"{number}.txt:{2 * number + 1}")
    assert best.line_text == f"The secret of {key} is {value}."
    assert sum(source.weight for source in answer.sources) <= 1 + 1e-6
    assert best.holds_answer and not answer.sources[-1].holds_answer
    others = [source.weight for source in answer.sources if not source.holds_answer]
    assert others == sorted(others, reverse=True)


def test_a_conversation_goes_on_and_leaves_the_memory_as_it_was(library):
    chunks = library.memory.num_chunks
    talk = library.conversation()
    for key, value in SECRETS.items():
        assert talk.ask(f"What is the secret of {key}?", max_new_tokens=12).text == f"{value}."
    assert library.memory.num_chunks == chunks


def test_an_empty_question_is_refused(library):
    with pytest.raises(ValueError, match="The question is empty"):
        library.ask("  ")


def test_the_chat_template_words_a_question_and_without_one_it_stands_on_its_line(library):
    asked = "What is the secret of the sea?"
    assert worded(asked, library.tokenizer) == f"\n{asked} The secret of the sea is"
    assert worded("Who?", library.tokenizer) == "\nWho?"
    template, library.tokenizer.chat_template = library.tokenizer.chat_template, None
    try:
        assert worded(asked, library.tokenizer) == f"\n{asked}"
    finally:
        library.tokenizer.chat_template = template


def selection(*landmarks):
    indices = torch.tensor([[list(chunks) for chunks, _ in landmarks]])
    return ChunkSelection(indices, torch.tensor([[list(weights) for _, weights in landmarks]]))


def test_weights_are_those_of_the_retrievals_that_served_the_answer():
    prompt = selection(([1, 2], [0.5, 0.5]), ([3, 2], [0.75, 0.25]))  # only the last one serves
    later = selection(([2, -1], [1.0, 0.0]))
    nothing = ChunkSelection(torch.zeros(1, 0, 2).long(), torch.zeros(1, 0, 2))
    assert chunk_weights([(prompt,), (nothing,), (later,)]) == {2: 0.625, 3: 0.375}
