"""`gcattn demo`: the whole system in a few minutes on a CPU, without data or network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import PreTrainedModel

    from gcattn.data import TokenShards

LENGTHS = (526, 1024, 2048, 4096)
VALIDATION_DOCUMENTS = 32

NEXT = """\
Next, on real data:
  gcattn data prepare BOOKS --out data/books/train     (parquet, jsonl or txt, a folder, owner/name)
  gcattn data prepare MORE_BOOKS --out data/books/validation
  gcattn train examples/books_cpu.yaml
  gcattn eval perplexity runs/books_cpu/model --data data/books/validation --lengths 1k,4k,16k
  gcattn generate runs/books_cpu/model --prompt "It was a dark night" """


def demo(
    steps: Annotated[int, typer.Option(min=10, help="Optimizer steps.")] = 600,
    documents: Annotated[int, typer.Option(min=64, help="Documents to train on.")] = 6000,
    out: Annotated[Path, typer.Option(help="Everything goes here.")] = Path("runs/demo"),
) -> None:
    """Make a corpus, train a tiny model on it, measure it by length and let it recall.

    Documents state facts that are recalled hundreds of tokens later, far outside the model's
    32-column window. Running it again goes on from where it stopped.
    """
    from rich.console import Console

    from gcattn.data import TokenShards
    from gcattn.evals.model_loading import load_causal_lm
    from gcattn.evals.perplexity import evaluate_perplexity
    from gcattn.evals.plot import plot_perplexity
    from gcattn.experiments.corpus import TRAIN_DOCUMENT_TOKENS, make_corpus
    from gcattn.experiments.variants import train_variant, variant_config

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold]1. Documents[/] whose end repeats what was stated long before")
    corpus = make_corpus(out / "corpus", documents, dict.fromkeys(LENGTHS, VALIDATION_DOCUMENTS))
    console.print(f"   {documents:,} documents of {TRAIN_DOCUMENT_TOKENS} tokens in {corpus.train}")

    console.print("[bold]2. Training[/] drt_tiny; Ctrl-C saves, the same command goes on")
    config = variant_config(corpus, out / "run", steps=steps, seed=0)
    folder = train_variant(config, quiet=False)

    console.print("[bold]3. Loss by length[/] (trained on the first length only)")
    model = load_causal_lm(str(folder), device="auto", dtype="auto")
    results = []
    for length in LENGTHS:
        shards = TokenShards(corpus.validation[length])
        results += evaluate_perplexity(model, shards, [length - 1])
        _report_recall(console, model, shards, length)
    picture = out / "loss_by_position.png"
    plot_perplexity(results, "drt_tiny on the synthetic corpus", picture)
    console.print(f"   {picture}")

    console.print("[bold]4. Recall[/] of what was stated far outside the window")
    _recall(console, model, folder)
    console.print(NEXT)


def _report_recall(
    console: "Console", model: "PreTrainedModel", shards: "TokenShards", length: int
) -> None:
    from gcattn.evals.recall import evaluate_recall

    loss = evaluate_recall(model, shards)
    console.print(
        f"   {length:5,} tokens: {loss.overall:.3f} nats per token; "
        f"recalled tokens {loss.recalled:.3f}, all others {loss.other:.3f}"
    )


def _recall(console: "Console", model: "PreTrainedModel", folder: Path) -> None:
    """Show a document, cut in front of a recalled description, and what the model goes on with."""
    import torch

    from gcattn.data import load_tokenizer, synthetic_documents
    from gcattn.experiments.corpus import TRAIN_DOCUMENT_TOKENS

    tokenizer = load_tokenizer(str(folder))
    document = next(iter(synthetic_documents(1, TRAIN_DOCUMENT_TOKENS, 7, "validation", tokenizer)))
    # descriptions are what so small a model learns within minutes
    described = [s for s in document.recall_spans if document.text[: s.start].endswith(" were")]
    span = described[0]
    prompt, truth = document.text[: span.start], document.text[span.start : span.end]
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)], device=model.device)
    wanted = len(tokenizer.encode(truth, add_special_tokens=False))
    new = model.generate(ids, max_new_tokens=wanted, do_sample=False)  # type: ignore[operator]
    generated = str(tokenizer.decode(new[0, ids.shape[1] :])).strip()
    stated = len(
        tokenizer.encode(document.text[span.source : span.start], add_special_tokens=False)
    )
    console.print(f"   stated {stated} tokens before; the prompt ends with: …{prompt[-90:]}")
    console.print(f"   [green]it was[/]      {truth.strip()}")
    console.print(f"   [cyan]generated[/]   {generated}")
    right = sum(a == b for a, b in zip(truth.split(), generated.split(), strict=False))
    console.print(f"   {right} of {len(truth.split())} words right")
