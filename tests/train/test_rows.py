"""Micro-batches are cut and counted as the model will see them."""

import torch

from gcattn.chunking import plan_chunks
from gcattn.models import DRTForCausalLM, drt_tiny
from gcattn.train.rows import cut_rows, ignore_unpredicted, most_chunks


def test_cutting_rows_keeps_the_text_in_order():
    batch = {"input_ids": torch.arange(24).view(2, 12), "labels": torch.arange(24).view(2, 12)}
    cut = cut_rows(batch, 4)
    assert cut["input_ids"].shape == (6, 4)
    assert torch.equal(cut["labels"].flatten(), torch.arange(24))


def test_counted_labels_are_those_the_model_predicts():
    """Summed cross-entropy over the count equals the model's own mean."""
    torch.manual_seed(0)
    model = DRTForCausalLM(drt_tiny(vocab_size=20)).eval()
    ids = torch.randint(0, 19, (2, 30))
    documents = torch.tensor([[0] * 11 + [1] * 4 + [2] * 15, [0] * 30])
    batch = ignore_unpredicted({"input_ids": ids, "labels": ids, "document_ids": documents})
    count = (batch["labels"] != -100).sum()
    assert count == 2 * 29 - 2
    mean = model(ids, labels=ids, document_ids=documents).loss
    summed = model(**batch, num_items_in_batch=count).loss
    torch.testing.assert_close(summed, mean)


def test_most_chunks_is_never_too_few():
    generator = torch.Generator().manual_seed(1)
    for num_tokens in (5, 15, 16, 31, 64):
        breaks = torch.rand(3, num_tokens, generator=generator) < 0.2
        layout, _ = plan_chunks(3, num_tokens, 16, chunk_breaks=breaks)
        assert (
            most_chunks(num_tokens, 16, int(breaks.sum(1).max())) >= layout.chunk_lengths.shape[1]
        )
