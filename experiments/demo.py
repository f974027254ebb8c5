"""`python -m experiments.demo`: a trained model finds what is hidden in long texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from experiments.corpus import make_corpus
from experiments.demo_library import show_library
from experiments.recipe import RECIPES, ROW_TOKENS, recipe_config
from experiments.variants import train_variant
from gcattn.cli.paths import expand
from gcattn.cli.program import run_command
from gcattn.cli.progress import reading_progress
from gcattn.data.needle_tasks import (
    Haystack,
    NeedleSample,
    NeedleTask,
    NeedleVocabulary,
    draw_sample,
)
from gcattn.evals.model_loading import load_causal_lm
from gcattn.evals.needle_answer import NeedleAnswer, answer_samples
from gcattn.evals.needle_haystack import open_haystack

# context lengths, and how many needles are asked for at each
QUESTIONS = {1024: 16, 16_384: 16, 131_072: 8, 1_048_576: 3}
# … for a larger model, which is asked in words that its training never used
RELEASED_QUESTIONS = {1024: 8, 16_384: 2, 65_536: 1}
TASK, RELEASED_TASK = "single", "worded-single"
HAYSTACK_DOCUMENTS, HAYSTACK_DOCUMENT_TOKENS = 256, 2048

NEXT = """\
Next, on your own files:
  gcattn memory build FILES --model checkpoints/gcattn-39m --out library
  gcattn ask library "Where …?"
Next, on real data:
  gcattn data prepare BOOKS --out data/books/train     (parquet, jsonl or txt, a folder, owner/name)
  gcattn data prepare MORE_BOOKS --out data/books/validation
  gcattn train examples/books_cpu.yaml
  gcattn eval perplexity runs/books_cpu/model --data data/books/validation --lengths 1k,4k,16k
  gcattn generate runs/books_cpu/model --prompt "It was a dark night" """


def command(
    model: Annotated[
        str | None,
        typer.Option(
            callback=expand,
            help="Folder of a trained model to ask, such as checkpoints/gcattn-39m.",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=10, help="Optimizer steps, where a model is trained.")
    ] = 1600,
    documents: Annotated[
        int, typer.Option(min=64, help="Documents to train on, where a model is trained.")
    ] = 6000,
    out: Annotated[Path, typer.Option(callback=expand, help="Everything goes here.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Find sentences in long texts, with a trained model or with one trained here.

    With --model, a released model is asked in a text made here, and then about modules of Python
    that it reads into a memory once. Without it, a tiny model is trained first, on rows of 240
    tokens of which it sees 32 at once; everything else it has to retrieve. Running that again goes
    on from where it stopped.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    text, questions, released, task = None, RELEASED_QUESTIONS, model, RELEASED_TASK
    if model is None:
        folder, text = _train(console, steps, documents, out)
        model, questions, task = str(folder), QUESTIONS, TASK
    asked = load_causal_lm(model, device="auto", dtype="auto")
    console.print("[bold]Needles[/] with keys and values that training never saw")
    with open_haystack(text, model, asked, seed=0) as haystack:
        tokenizer = haystack.shards.tokenizer
        vocabulary = NeedleVocabulary(tokenizer, "validation")
        for length, count in questions.items():
            sample, answers = _ask(asked, haystack, vocabulary, task, length, count)
            right = sum(answer.exact for answer in answers)
            seconds = sum(a.prefill_seconds + a.answer_seconds for a in answers) / count
            console.print(
                f"   {length:9,} tokens: {right} of {count} answers right, token for token; "
                f"{seconds:.1f} s each"
            )
        console.print("[bold]The last one[/]")
        _show(console, tokenizer, sample, answers[-1])
        if released is not None:
            show_library(console, released)
    console.print(NEXT)


def _train(console: Console, steps: int, documents: int, out: Path) -> tuple[Path, Path]:
    """Train a tiny model; return its folder and that of the text to hide needles in."""
    console.print("[bold]Text[/] of our own making, in which sentences are hidden")
    corpus = make_corpus(out / "corpus", documents, {HAYSTACK_DOCUMENT_TOKENS: HAYSTACK_DOCUMENTS})
    validation = corpus.validation[HAYSTACK_DOCUMENT_TOKENS]
    console.print(f"   {corpus.train}")
    console.print(
        f"[bold]Training[/] drt_tiny on rows of {ROW_TOKENS} tokens; Ctrl-C saves, the same "
        "command goes on"
    )
    config = recipe_config(RECIPES["base"], corpus.train, validation, out / "run", steps, 0)
    return train_variant(config, quiet=False), validation


def _ask(
    model: PreTrainedModel,
    haystack: Haystack,
    vocabulary: NeedleVocabulary,
    task: str,
    length: int,
    count: int,
) -> tuple[NeedleSample, list[NeedleAnswer]]:
    """Hide one needle in each of `count` contexts, at even depths, and ask for it."""
    read, answers = 0, []
    with reading_progress() as on_progress:
        for index in range(count):
            sample = draw_sample(
                NeedleTask.parse(task),
                haystack,
                vocabulary,
                length=length,
                seed=0,
                index=index,
                depth=(index + 1) / (count + 1),
            )

            def on_tokens(number: int) -> None:
                nonlocal read
                read += number
                on_progress(read, length * count)

            answers += answer_samples(
                model,
                [sample],
                [index],
                segment_length=16_384,
                on_tokens=on_tokens,
            )
    return sample, answers


def _show(
    console: Console,
    tokenizer: PreTrainedTokenizerFast,
    sample: NeedleSample,
    answer: NeedleAnswer,
) -> None:
    def text(ids: Sequence[int]) -> str:
        return repr(str(tokenizer.decode(list(ids))))[1:-1]

    needle = sample.exercise.needles[0]
    place = sample.context.starts[0]
    total = sample.context.num_tokens
    console.print(
        f"   hidden at token {place:,} of {total:,}: {text(needle.token_ids)}", markup=False
    )
    console.print(f"   asked: {text(sample.questions[0].prompt)}", markup=False)
    console.print(f"   it was:    {text(answer.expected[0])}", markup=False)
    console.print(f"   generated: {text(answer.generated[0])}", markup=False)


if __name__ == "__main__":
    run_command(command, "experiments.demo")
