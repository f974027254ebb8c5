"""The regular layout against the general one for the same rows."""

import pytest
import torch

from gcattn.chunking import RegularLayout, plan_chunks

CASES = [(2, 1, 2), (1, 3, 5), (2, 4, 5), (3, 8, 5), (2, 29, 8), (1, 28, 8)]  # B, T, S


def both(B, T, S):
    general, _ = plan_chunks(B, T, S)
    return general, RegularLayout(S, B, T, torch.device("cpu"))


@pytest.mark.parametrize(("B", "T", "S"), CASES)
def test_columns_are_those_of_the_general_layout_with_padding_behind(B, T, S):
    general, regular = both(B, T, S)
    tokens, landmark = torch.randn(B, T, 3), torch.randn(3)
    columns = regular.columns_from_tokens(tokens, landmark)
    used = general.num_columns
    assert columns.shape[1] == regular.num_columns
    assert regular.num_columns % S == 0
    torch.testing.assert_close(columns[:, :used], general.columns_from_tokens(tokens, landmark))
    assert torch.equal(regular.positions[:, :used].expand(B, -1), general.positions)
    assert torch.equal(regular.tokens_from_columns(columns), tokens)
    assert torch.equal(regular.tokens_from_columns(columns, 1), tokens[:, -1:])


@pytest.mark.parametrize(("B", "T", "S"), CASES)
def test_finished_chunks_are_those_of_the_general_layout(B, T, S):
    general, regular = both(B, T, S)
    tokens, landmark = torch.randn(B, T, 3), torch.randn(3)
    columns = regular.columns_from_tokens(tokens, landmark)
    expected = general.columns_from_tokens(tokens, landmark)
    finished = general.num_finished_chunks
    assert regular.num_finished_chunks == finished
    assert torch.equal(
        regular.grid_from_columns(columns)[:, :finished],
        general.grid_from_columns(expected)[:, :finished],
    )
    assert torch.equal(regular.at_landmarks(columns), general.at_landmarks(expected))
    assert torch.equal(regular.chunk_lengths, general.chunk_lengths)
    assert torch.equal(regular.num_visible, general.num_visible)


@pytest.mark.parametrize("from_landmark", [False, True])
@pytest.mark.parametrize(("B", "T", "S"), CASES)
def test_blocks_hold_the_same_columns(B, T, S, from_landmark):
    general, regular = both(B, T, S)
    columns = torch.randn(B, regular.num_columns, 2, 3)
    blocks = regular.blocks(from_landmark=from_landmark)
    gathered = blocks.gather(columns)
    assert gathered.shape[:3] == (B, blocks.num_blocks, S)
    assert torch.equal(blocks.scatter(gathered), columns)

    expected = general.blocks(from_landmark=from_landmark)
    place = expected.column  # [B, blocks, M]: which column is in which place
    for row, block, at in (place >= 0).nonzero().tolist():
        column = columns[row, place[row, block, at]]
        # the first block has no landmark before it: its columns begin one place later
        shift = int(from_landmark and block == 0)
        assert torch.equal(gathered[row, block, at + shift], column)


@pytest.mark.parametrize("num_columns", [2, 3, 5, 9, 40])
@pytest.mark.parametrize(("B", "T", "S"), CASES)
def test_a_tail_ends_like_that_of_the_general_layout(B, T, S, num_columns):
    general, regular = (layout.tail(num_columns) for layout in both(B, T, S))
    columns, tokens = torch.randn(B, 60, 3), torch.randn(B, T, 3)
    whole_general, whole_regular = both(B, T, S)
    views = []
    for layout, whole in ((general, whole_general), (regular, whole_regular)):
        columns = whole.columns_from_tokens(tokens, torch.ones(3))
        kept = whole.tail_columns(columns, num_columns)
        assert kept.shape[1] == layout.num_columns
        n = min(layout.num_finished_chunks, 1)
        views.append(
            (
                layout.tokens_from_columns(kept, 1),
                layout.at_landmarks(kept)[:, -n:] if n else kept[:, :0],
                layout.num_visible[:, -n:] if n else None,
                layout.tokens_from_columns(layout.positions.expand(B, -1).unsqueeze(-1), 1),
            )
        )
    found, expected = views[1], views[0]
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[3], expected[3])
    if general.num_finished_chunks:
        assert torch.equal(found[1], expected[1])
        assert torch.equal(found[2], expected[2])


def test_a_layout_that_is_not_cut_is_its_own_tail():
    for layout in both(2, 29, 8):
        assert layout.tail(100) is layout
