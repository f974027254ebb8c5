"""Needles in a saved memory: a context is read once, and every question is asked of it alone.

All samples of a task and length are hidden in one context, so a billion tokens are read once and
not once for each sample. Each question is a stream of its own on the memory: it sees neither other
questions nor the end of the context. Processes that `torchrun` started divide the reading among
them; the first one asks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gcattn.data.needle_tasks import NeedleTask, draw_sharing_samples
from gcattn.evals.cells import CellRun
from gcattn.evals.needle_answer import NeedleAnswer, ask_samples
from gcattn.evals.needle_cells import NeedleCell
from gcattn.evals.stream_reader import StreamReader
from gcattn.library.id_streams import read_ids
from gcattn.library.making import default_settings
from gcattn.library.ranks import Ranks
from gcattn.memory.saved import open_memory
from gcattn.memory.saved.description import DESCRIPTION
from gcattn.storage.whole import new_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gcattn.data.needle_tasks import Haystack, NeedleSample, NeedleVocabulary
    from gcattn.memory.stores import MemoryTier

# beside a memory: the time that reading it took, over all runs
SECONDS_FILE = "reading_seconds.json"
# between two updates of it
_SAVED_EVERY = 1.0


def evaluate_needles_in_memory(
    model: PreTrainedModel,
    haystack: Haystack,
    vocabulary: NeedleVocabulary,
    tasks: Sequence[NeedleTask],
    lengths: Sequence[int],
    depths: Sequence[float],
    run: CellRun,
    *,
    folder: Path,
    tier: MemoryTier | None,
) -> list[NeedleCell]:
    """Hide the samples of each task and length in one context, read it once, and ask.

    Args:
        model: A `DRTForCausalLM` in evaluation mode.
        haystack: The text around the needles, made with the model's tokenizer.
        vocabulary: Keys and values.
        tasks: What is hidden and asked.
        lengths: Tokens of a context, and of the questions and answers of one sample.
        depths: Where the first needle of an answer lies, 0 to 1.
        run: How the cells are evaluated; memories are read in blocks of their own size.
        folder: Holds a memory for each task and length. Reading continues where a killed run
            stopped, and a memory that is there is not read again.
        tier: Where keys and values come from; None and "recompute": only token ids are kept.

    Returns:
        The cells; none in a process that only helped to read.

    Raises:
        ValueError: The model retrieves nothing, a length has no room for the samples, or the folder
            holds another memory.
    """
    if getattr(model.config, "retrieval_method", "none") in ("none", "fixed"):
        raise ValueError(
            f"A {type(model).__name__} makes no memory that can be kept: evaluate it without "
            "--memory."
        )
    keys_values = tier not in (None, "recompute")
    total, finished = len(tasks) * sum(lengths), list[NeedleCell]()
    done = 0
    for length, task in product(lengths, tasks):
        samples = draw_sharing_samples(
            task,
            haystack,
            vocabulary,
            length=length,
            seed=run.seed,
            depths=depths,
            num_samples=run.num_samples,
        )
        place = folder / f"{task}_{length}".replace(":", "-")

        def on_tokens(tokens: int, before: int = done) -> None:
            if run.on_progress is not None:
                run.on_progress(before + tokens, total)

        name = f"{task}, {length} tokens, seed {run.seed}, {len(samples)} samples"
        seconds = _read(
            place, name, samples[0], model, keys_values=keys_values, on_tokens=on_tokens
        )
        done += length
        if seconds is None:
            continue
        answers = _asked(model, place, tier, samples, run.num_samples, seconds)
        for number, depth in enumerate(depths):
            own = answers[number * run.num_samples :][: run.num_samples]
            cell = NeedleCell(str(task), length, depth, answers=tuple(own))
            finished.append(cell)
        if run.on_cell is not None:
            run.on_cell(finished)
    return finished


def _read(
    folder: Path, name: str, sample: NeedleSample, model: Any, *, keys_values: bool, on_tokens: Any
) -> float | None:
    """Read a context into a memory; return the seconds it took, None where another process asks."""
    ranks = Ranks()
    ranks.agree(lambda: _check_free(folder, name))
    settings = default_settings(model, keys_values=keys_values)
    file = folder / SECONDS_FILE
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else 0.0
    begin = saved = time.monotonic()

    def on_progress(tokens: int) -> None:
        nonlocal saved
        on_tokens(tokens)
        if time.monotonic() - saved >= _SAVED_EVERY:
            saved = time.monotonic()
            _save_seconds(file, before + saved - begin)

    context = sample.context
    try:
        pieces = context.segments(settings.block_tokens)
        read_ids(folder, name, pieces, model, settings=settings, on_progress=on_progress)
    except FileExistsError:
        return before if ranks.writes else None
    if not ranks.writes:
        return None
    seconds = before + time.monotonic() - begin
    _save_seconds(file, seconds)
    return seconds


def _check_free(folder: Path, name: str) -> None:
    """Refuse a memory of something else."""
    if not (folder / DESCRIPTION).exists():
        return
    held = [document.name for document in open_memory(folder).documents]
    if held and held != [name]:
        raise ValueError(
            f"{folder} holds a memory of {held[0]!r}, expected {name!r}: remove it, or choose "
            "another folder for --memory."
        )


def _save_seconds(file: Path, seconds: float) -> None:
    with new_file(file) as stream:
        stream.write(f"{json.dumps(seconds)}\n")


def _asked(
    model: PreTrainedModel,
    folder: Path,
    tier: MemoryTier | None,
    samples: Sequence[NeedleSample],
    num_samples: int,
    seconds: float,
) -> list[NeedleAnswer]:
    """Ask each sample's questions in a stream of its own."""
    memory = open_memory(folder, tier)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    memory.bind(model)
    held = memory.num_bytes()
    answers: list[NeedleAnswer] = []
    for number, sample in enumerate(samples):
        reader = StreamReader(model, memory=memory)
        answers += ask_samples(
            model,
            reader,
            [sample],
            [number % num_samples],
            prefill_seconds=seconds,
            memory_bytes=held,
            in_memory=True,
        )
    return answers
