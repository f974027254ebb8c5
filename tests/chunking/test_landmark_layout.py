"""A landmark by itself has the layout that it has beside its token."""

from dataclasses import replace

import torch

from gcattn.chunking import ChunkState, plan_chunks
from gcattn.chunking.landmark_layout import LandmarkLayout

S = 5


def test_it_is_the_second_column_of_a_token_that_closes_a_chunk():
    # the first and the last row are one token short of a chunk
    state = replace(
        ChunkState.start(3),
        open_length=torch.tensor([S - 2, 1, S - 2]),
        num_chunks=torch.tensor([4, 2, 0]),
        next_position=torch.tensor([23, 11, 3]),
        document=torch.tensor([1, 0, 0]),
    )
    both, _ = plan_chunks(3, 1, S, state=state)
    alone = LandmarkLayout(
        positions=state.next_position[:, None] + 1,
        documents=both.documents[:, 1:],
        chunk_size=S,
        chunks=state.num_chunks,
    )
    used = both.documents[:, 1:] >= 0
    assert used.flatten().tolist() == [True, False, True]
    assert torch.equal(alone.positions[used], both.positions[:, 1:][used])
    assert torch.equal(alone.is_landmark, both.is_landmark[:, 1:])
    assert alone.num_finished_chunks == both.num_finished_chunks
    for name in ("chunk_documents", "chunk_lengths", "num_visible", "num_finished"):
        assert torch.equal(getattr(alone, name), getattr(both, name)), name
    x = torch.randn(3, 2, 7)
    assert torch.equal(alone.at_landmarks(x[:, 1:])[used], both.at_landmarks(x)[used])
    token, landmark = x[:, :1], torch.randn(7)
    columns = both.columns_from_tokens(token, landmark)
    assert torch.equal(alone.columns_from_tokens(token, landmark), columns[:, 1:])
