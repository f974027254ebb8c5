"""`gcattn demo`: a tiny model learns to find needles, then is asked in up to a million tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import PreTrainedTokenizerFast

    from gcattn.data.needle_tasks import NeedleSample
    from gcattn.evals.needle_answer import NeedleAnswer

# context lengths, and how many needles are asked for at each
QUESTIONS = {1024: 16, 16_384: 16, 131_072: 8, 1_048_576: 3}
HAYSTACK_DOCUMENTS, HAYSTACK_DOCUMENT_TOKENS = 256, 2048

NEXT = """\
Next, on real data:
  gcattn data prepare BOOKS --out data/books/train     (parquet, jsonl or txt, a folder, owner/name)
  gcattn data prepare MORE_BOOKS --out data/books/validation
  gcattn train examples/books_cpu.yaml
  gcattn eval perplexity runs/books_cpu/model --data data/books/validation --lengths 1k,4k,16k
  gcattn generate runs/books_cpu/model --prompt "It was a dark night" """


def demo(
    steps: Annotated[int, typer.Option(min=10, help="Optimizer steps.")] = 1600,
    documents: Annotated[int, typer.Option(min=64, help="Documents to train on.")] = 6000,
    out: Annotated[Path, typer.Option(help="Everything goes here.")] = Path("runs/demo"),
) -> None:
    """Make a text, train a tiny model to find sentences in it, and ask it in a million tokens too.

    The model is trained on rows of 240 tokens and sees 32 of them at once; everything else it has
    to retrieve. Running it again goes on from where it stopped.
    """
    from rich.console import Console

    from gcattn.data import TokenShards
    from gcattn.data.needle_tasks import Haystack, NeedleVocabulary
    from gcattn.data.tokenizer_loading import load_tokenizer
    from gcattn.evals.model_loading import load_causal_lm
    from gcattn.experiments.corpus import make_corpus
    from gcattn.experiments.recipe import RECIPES, ROW_TOKENS, recipe_config
    from gcattn.experiments.variants import train_variant

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold]1. Text[/] of our own making, in which sentences are hidden")
    corpus = make_corpus(out / "corpus", documents, {HAYSTACK_DOCUMENT_TOKENS: HAYSTACK_DOCUMENTS})
    validation = corpus.validation[HAYSTACK_DOCUMENT_TOKENS]
    console.print(f"   {corpus.train}")

    console.print(
        f"[bold]2. Training[/] drt_tiny on rows of {ROW_TOKENS} tokens; Ctrl-C saves, the same "
        "command goes on"
    )
    config = recipe_config(RECIPES["base"], corpus.train, validation, out / "run", steps, 0)
    folder = train_variant(config, quiet=False)

    console.print("[bold]3. Needles[/] with keys and values that training never saw")
    model = load_causal_lm(str(folder), device="auto", dtype="auto")
    haystack = Haystack(TokenShards(validation))
    tokenizer = load_tokenizer(haystack.shards.tokenizer_folder)
    vocabulary = NeedleVocabulary(
        tokenizer, "validation", excluded_ids=[model.config.landmark_token_id]
    )
    for length, count in QUESTIONS.items():
        sample, answers = _ask(model, haystack, vocabulary, length, count)
        right = sum(answer.exact for answer in answers)
        seconds = sum(a.prefill_seconds + a.answer_seconds for a in answers) / count
        console.print(
            f"   {length:9,} tokens: {right} of {count} answers right, token for token; "
            f"{seconds:.1f} s each"
        )
    console.print("[bold]4. The last one[/]")
    _show(console, tokenizer, sample, answers[-1])
    console.print(NEXT)


def _ask(
    model: object, haystack: object, vocabulary: object, length: int, count: int
) -> tuple["NeedleSample", list["NeedleAnswer"]]:
    """Hide one needle in each of `count` contexts, at even depths, and ask for it."""
    from gcattn.cli.evaluate import reading_progress
    from gcattn.data.needle_tasks import NeedleTask, draw_sample
    from gcattn.evals.needle_answer import answer_samples

    read, answers = 0, []
    with reading_progress() as on_progress:
        for index in range(count):
            sample = draw_sample(
                NeedleTask.parse("single"),
                haystack,  # type: ignore[arg-type]
                vocabulary,  # type: ignore[arg-type]
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
                model,  # type: ignore[arg-type]
                [sample],
                [index],
                segment_length=16_384,
                on_tokens=on_tokens,
            )
    return sample, answers


def _show(
    console: "Console",
    tokenizer: "PreTrainedTokenizerFast",
    sample: "NeedleSample",
    answer: "NeedleAnswer",
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
