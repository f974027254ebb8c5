"""Training windows: every mode, and the promise that a window is exactly T tokens."""

import multiprocessing
import pickle

import numpy as np
import pytest
import torch

from gcattn.data import ShardDataset, prepare_synthetic_shards


@pytest.mark.parametrize("sequence_length", [2, 7, 16, 50])
@pytest.mark.parametrize("documents", ["ignore", "pack"])
def test_windows_are_the_corpus_cut_into_equal_pieces(shards, sequence_length, documents):
    dataset = ShardDataset(shards, sequence_length, documents)
    assert len(dataset) == shards.num_tokens // sequence_length
    together = torch.cat([dataset[i]["input_ids"] for i in range(len(dataset))])
    assert together.tolist() == shards.tokens(0, len(dataset) * sequence_length).tolist()
    assert together.dtype == torch.int64


def test_labels_equal_the_inputs_and_share_no_memory_with_them(shards):
    window = ShardDataset(shards, 7)[0]
    assert set(window) == {"input_ids", "labels"}
    assert torch.equal(window["labels"], window["input_ids"])
    window["labels"].fill_(-100)
    assert (window["input_ids"] >= 0).all()


def test_packed_document_ids_change_right_after_every_end_of_text(shards):
    dataset = ShardDataset(shards, 30, "pack")
    for i in range(len(dataset)):
        window = dataset[i]
        ends = window["input_ids"] == shards.eos_token_id
        expected = torch.cumsum(ends, 0) - ends.long()
        assert window["document_ids"].tolist() == expected.tolist()


def test_windows_that_are_a_library_have_the_documents_of_packed_ones(shards):
    packed, drawn = ShardDataset(shards, 8, "pack"), ShardDataset(shards, 8, library_rate=0.5)
    kept = [
        torch.equal(drawn[i]["document_ids"], packed[i]["document_ids"]) for i in range(len(packed))
    ]
    several = [bool(packed[i]["document_ids"].any()) for i in range(len(packed))]
    assert (
        0 < sum(many and not same for many, same in zip(several, kept, strict=True)) < sum(several)
    )
    assert all(kept[i] or not drawn[i]["document_ids"].any() for i in range(len(packed)))
    assert "document_ids" not in ShardDataset(shards, 8)[0]


@pytest.mark.parametrize("sequence_length", [4, 9])
def test_separate_windows_lie_inside_one_document_and_miss_less_than_a_window(
    shards, sequence_length
):
    dataset = ShardDataset(shards, sequence_length, "separate")
    windows = [dataset[i]["input_ids"].tolist() for i in range(len(dataset))]
    expected, skipped = [], 0
    for number in range(shards.num_documents):
        ids = [*shards.document(number).tolist(), shards.eos_token_id]
        count = len(ids) // sequence_length
        skipped += count == 0
        expected += [ids[i * sequence_length :][:sequence_length] for i in range(count)]
    assert windows == expected
    assert dataset.num_skipped_documents == skipped


def test_skipped_documents_are_reported(shards, caplog):
    ShardDataset(shards, 9, "separate")
    assert "1 of 5 documents are shorter than 9 tokens" in caplog.text


@pytest.mark.parametrize("documents", ["ignore", "pack", "separate"])
def test_a_window_longer_than_the_corpus_is_refused(shards, documents):
    with pytest.raises(ValueError, match=r"No window of sequence_length 100000 fits.*tokens"):
        ShardDataset(shards, 100_000, documents)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequence_length": 1}, "at least 2, got 1"),
        ({"sequence_length": 8, "documents": "both"}, "documents must be one of"),
        ({"sequence_length": 8, "library_rate": 2}, "library_rate must lie in"),
        ({"sequence_length": 8, "documents": "pack", "library_rate": 0.5}, "unless documents is"),
        ({"sequence_length": 8, "include_recall_mask": True}, "has no recall mask"),
    ],
)
def test_bad_arguments_are_refused(shards, arguments, message):
    with pytest.raises(ValueError, match=message):
        ShardDataset(shards, **arguments)


def test_indexing_past_the_end_stops_iteration(shards):
    dataset = ShardDataset(shards, 16)
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    assert len(list(dataset)) == len(dataset)


@pytest.mark.slow
def test_a_spawned_worker_reads_the_same_windows(shards):
    dataset = ShardDataset(shards, 16, "pack")
    context = multiprocessing.get_context("spawn")
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=2, num_workers=1, multiprocessing_context=context
    )
    rows = torch.cat([batch["input_ids"] for batch in loader])
    assert rows.tolist() == [dataset[i]["input_ids"].tolist() for i in range(len(dataset))]
    assert len(pickle.dumps(dataset)) < 5000


def test_recall_mask_comes_only_when_asked_for(tmp_path):
    shards = prepare_synthetic_shards(tmp_path / "out", 3, 512, seed=0)
    dataset = ShardDataset(shards, 512, include_recall_mask=True)
    masks = np.stack([window["recall_mask"].numpy() for window in dataset])
    assert masks.ravel().tolist() == shards.recall_mask.tolist()
    assert "recall_mask" not in ShardDataset(shards, 512)[0]
