"""Properties of the chunk layout, over any padding, breaks and documents."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from gcattn.chunking import ChunkState, insert_landmarks, plan_chunks, strip_landmarks

LANDMARK = 9999


@st.composite
def batches(draw):
    B, T = draw(st.integers(1, 3)), draw(st.integers(1, 60))
    chunk_size = draw(st.integers(2, 20))
    ids = torch.arange(1, B * T + 1).reshape(B, T)  # every token is unique
    bools = st.lists(st.booleans(), min_size=B * T, max_size=B * T)
    mask = torch.ones(B, T).long()
    for row in range(B):
        left = draw(st.integers(0, T - 1))
        right = draw(st.integers(0, T - 1 - left))
        mask[row, :left] = 0
        mask[row, T - right :] = 0
    breaks = torch.tensor(draw(bools)).reshape(B, T)
    changes = torch.tensor(draw(bools)).reshape(B, T) & (torch.arange(T) % 7 == 0)
    documents = changes.cumsum(1)
    return ids, chunk_size, mask, breaks, documents


def columns_of(batch):
    ids, chunk_size, mask, breaks, documents = batch
    return insert_landmarks(
        ids, chunk_size, LANDMARK, attention_mask=mask, chunk_breaks=breaks, document_ids=documents
    )


@given(batches())
def test_round_trip_loses_no_token(batch):
    ids, mask = batch[0], batch[2]
    columns, layout = columns_of(batch)
    assert torch.equal(strip_landmarks(columns, layout), ids * mask)


@given(batches())
def test_chunks_close_when_full_at_breaks_and_at_document_ends_only(batch):
    ids, chunk_size, mask, breaks, documents = batch
    columns, layout = columns_of(batch)
    for row in range(len(ids)):
        used = layout.columns.document[row] >= 0
        expected, in_chunk, last_document = [], 0, None
        for token, real, closes, document in zip(
            ids[row].tolist(), mask[row], breaks[row], documents[row].tolist(), strict=True
        ):
            if not real:
                continue
            if in_chunk and last_document is not None and document != last_document:
                expected.append(LANDMARK)
                in_chunk = 0
            expected.append(token)
            in_chunk, last_document = in_chunk + 1, document
            if closes or in_chunk == chunk_size - 1:
                expected.append(LANDMARK)
                in_chunk = 0
        assert columns[row, used].tolist() == expected
        assert used[: len(expected)].all()  # nothing but padding behind the row


@given(batches())
def test_no_chunk_holds_two_documents_and_positions_restart_with_each(batch):
    _, layout = columns_of(batch)
    places = layout.columns
    for row in range(len(batch[0])):
        used = places.document[row] >= 0
        documents, chunks = places.document[row][used], places.chunk[row][used]
        for chunk in chunks.unique():
            assert len(documents[chunks == chunk].unique()) == 1
        for document in documents.unique():
            positions = places.position[row][used][documents == document]
            assert positions.tolist() == list(range(len(positions)))


@given(batches())
def test_grid_holds_every_column_once_with_the_landmark_in_the_last_slot(batch):
    _, layout = columns_of(batch)
    places = layout.columns
    for row in range(len(batch[0])):
        used = places.document[row] >= 0
        held = layout.column_of_slot[row][layout.column_of_slot[row] >= 0]
        assert held.sort().values.tolist() == used.nonzero().flatten().tolist()
        for chunk, length in enumerate(layout.chunk_lengths[row].tolist()):
            if length:
                slots = layout.column_of_slot[row, chunk]
                assert (slots[:length] >= 0).all()
                assert (slots[length:-1] == -1).all()
                assert slots[-1] == slots[length - 1] + 1


@given(batches(), st.integers(1, 59))
def test_two_calls_lay_out_what_one_call_does(batch, cut):
    ids, chunk_size, mask, breaks, documents = batch
    B, T = ids.shape
    cut = min(cut, T)
    whole, end = plan_chunks(
        B, T, chunk_size, valid=mask, chunk_breaks=breaks, document_ids=documents
    )
    state, places = ChunkState.start(B), []
    for part in (slice(0, cut), slice(cut, T)):
        size = len(range(T)[part])
        if size == 0 or not mask[:, part].any():
            continue
        layout, state = plan_chunks(
            B,
            size,
            chunk_size,
            valid=mask[:, part],
            chunk_breaks=breaks[:, part],
            document_ids=documents[:, part],
            state=state,
        )
        places.append((layout, layout.columns))
    for row in range(B):
        for name in ("position", "document", "slot"):
            parts = [getattr(c, name)[row][c.document[row] >= 0] for _, c in places]
            expected = getattr(whole.columns, name)[row][whole.columns.document[row] >= 0]
            assert torch.cat(parts).tolist() == expected.tolist()
        chunks = [
            (c.chunk[row] + layout.first_chunk[row])[c.document[row] >= 0] for layout, c in places
        ]
        expected = whole.columns.chunk[row][whole.columns.document[row] >= 0]
        assert torch.cat(chunks).tolist() == expected.tolist()
    assert all(torch.equal(getattr(state, n), getattr(end, n)) for n in vars(end))


@given(batches(), st.booleans())
def test_blocks_bring_columns_back_unchanged(batch, from_landmark):
    columns, layout = columns_of(batch)
    blocks = layout.blocks(from_landmark=from_landmark)
    used = layout.columns.document >= 0
    assert torch.equal(blocks.scatter(blocks.gather(columns)), torch.where(used, columns, 0))


@given(batches(), st.integers(1, 70))
def test_tail_is_the_end_of_every_row(batch, num_columns):
    columns, layout = columns_of(batch)
    tail = layout.tail(num_columns)
    taken = layout.tail_columns(columns, num_columns)
    for row in range(len(batch[0])):
        used = columns[row][layout.columns.document[row] >= 0]
        kept = taken[row][tail.columns.document[row] >= 0]
        assert kept.tolist() == used[-num_columns:].tolist()
        landmarks = tail.landmark_column[row][tail.landmark_column[row] >= 0]
        assert taken[row][landmarks].tolist() == [LANDMARK] * (kept == LANDMARK).sum()
