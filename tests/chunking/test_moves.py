"""Moving columns between their views: the gradient moves back."""

import pytest
import torch

from gcattn.chunking import plan_chunks
from gcattn.chunking.moves import gather_columns


@pytest.mark.parametrize("seed", range(6))
def test_every_view_has_the_gradient_of_a_plain_gather(seed):
    generator = torch.Generator().manual_seed(seed)
    B, T, S = 2, 23, 5
    breaks = torch.rand(B, T, generator=generator) < 0.2
    valid = torch.rand(B, T, generator=generator) < 0.9
    valid[:, 0] = True
    documents = torch.randint(0, 3, (B, T), generator=generator).sort(dim=1).values
    layout, _ = plan_chunks(B, T, S, valid=valid, chunk_breaks=breaks, document_ids=documents)
    blocks = layout.blocks(from_landmark=bool(seed % 2))
    L = layout.num_columns
    views = [
        (layout.tokens_from_columns, layout.column_of_token, (B, L, 3)),
        (layout.grid_from_columns, layout.column_of_slot, (B, L, 3)),
        (layout.at_landmarks, layout.landmark_column, (B, L, 3)),
        (blocks.gather, blocks.column, (B, L, 2, 3)),
        (lambda x: layout.columns_from_tokens(x, torch.zeros(3)), layout.columns.token, (B, T, 3)),
        (
            lambda x: blocks.scatter(x.unflatten(1, blocks.column.shape[1:])),
            blocks.place,
            (B, blocks.column[0].numel(), 2, 3),
        ),
    ]
    for view, index, shape in views:
        x = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        moved, plain = view(x), gather_columns(x, index)
        assert torch.equal(moved, plain)
        weights = torch.randn(moved.shape, generator=generator, dtype=torch.float64)
        found, expected = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (moved, plain))
        torch.testing.assert_close(found, expected)
