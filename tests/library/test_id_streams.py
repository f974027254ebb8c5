"""A stream of ids is read without ever being whole, and gone on with after a kill."""

import numpy as np
import pytest
import torch
from library_runs import Killed, assert_same

from gcattn import open_memory, read_ids
from gcattn.library.state import BuildSettings
from processes import run_together

SETTINGS = BuildSettings(block_tokens=64, part_bytes=1, dtype="float32")
NUM_PIECES, PIECE = 41, 17


def pieces():
    """Yield a stream, the same every time."""
    for number in range(NUM_PIECES):
        yield np.random.default_rng(number).integers(0, 16_000, PIECE)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("memories") / "whole"
    read_ids(folder, "stream", pieces(), model, settings=SETTINGS)
    return folder


def test_a_stream_becomes_the_document_that_it_is(whole, model):
    memory = open_memory(whole)
    (document,) = memory.documents
    assert (document.name, document.num_tokens) == ("stream", NUM_PIECES * PIECE)
    ids = np.concatenate(list(pieces()))
    assert np.array_equal(memory.token_ids(0, memory.num_chunks).numpy(), ids)


def test_no_more_is_drawn_than_two_segments_ahead(model, tmp_path):
    drawn, lead = [0], []

    def watched():
        for piece in pieces():
            drawn[0] += len(piece)
            yield piece

    def on_progress(tokens):
        lead.append(drawn[0] - tokens)

    read_ids(tmp_path / "m", "s", watched(), model, settings=SETTINGS, on_progress=on_progress)
    assert len(lead) > 5 and max(lead) <= SETTINGS.block_tokens + 2 * PIECE


@pytest.mark.parametrize("blocks", [1, 4, 9])
def test_killed_and_gone_on_with_it_is_the_same_bitwise(blocks, whole, model, tmp_path):
    left = [blocks]

    def on_progress(tokens):
        left[0] -= 1
        if not left[0]:
            raise Killed

    arguments = tmp_path / "memory", "stream"
    with pytest.raises(Killed):
        read_ids(*arguments, pieces(), model, settings=SETTINGS, on_progress=on_progress)
    with pytest.raises(ValueError, match=r"Reading stream into .* is not finished"):
        read_ids(tmp_path / "memory", "other", pieces(), model, settings=SETTINGS)
    read_ids(*arguments, pieces(), model, settings=SETTINGS)
    assert_same(whole, tmp_path / "memory")
    with pytest.raises(FileExistsError, match="holds stream already"):
        read_ids(*arguments, pieces(), model, settings=SETTINGS)


def read(rank, folder, model):
    read_ids(folder, "stream", pieces(), model, settings=SETTINGS)


def test_two_processes_read_what_one_reads_bitwise(whole, model, tmp_path):
    run_together(2, read, tmp_path / "memory", model)
    assert_same(whole, tmp_path / "memory")


def test_lists_and_tensors_are_pieces_too(whole, model, tmp_path):
    mixed = (
        piece.tolist() if n % 2 else torch.from_numpy(piece) for n, piece in enumerate(pieces())
    )
    read_ids(tmp_path / "memory", "stream", mixed, model, settings=SETTINGS)
    assert_same(whole, tmp_path / "memory")
    with pytest.raises(ValueError, match=r"rows of ids \[n\], got shape \(1, 2\)"):
        read_ids(tmp_path / "rows", "stream", [[[1, 2]]], model, settings=SETTINGS)
