"""Rows with breaks or documents are planned by the processes that read them."""

import torch

from gcattn.models import drt_tiny, plan_ahead
from gcattn.train.collation import Collator

CONFIG = drt_tiny(vocab_size=64)


def row(**more):
    return {"input_ids": torch.arange(40), "labels": torch.arange(40)} | more


def test_rows_with_breaks_come_with_a_plan_in_their_place():
    breaks = torch.zeros(40, dtype=torch.bool)
    breaks[7] = True
    batch = Collator(CONFIG)([row(chunk_breaks=breaks), row(chunk_breaks=~breaks)])
    assert batch.keys() == {"input_ids", "labels", "plan"}
    assert batch["input_ids"].shape == (2, 40)
    expected = plan_ahead(CONFIG, (2, 40), chunk_breaks=torch.stack([breaks, ~breaks]))
    assert torch.equal(batch["plan"].chunk_of_token, expected.chunk_of_token)


def test_documents_stay_beside_their_plan_for_the_labels():
    batch = Collator(CONFIG)([row(document_ids=torch.arange(40) // 9)])
    assert batch.keys() == {"input_ids", "labels", "document_ids", "plan"}


def test_rows_of_one_document_each_lie_on_the_fixed_grid():
    one = torch.full((40,), 3)
    assert Collator(CONFIG)([row(document_ids=one)]).keys() == {"input_ids", "labels"}
    batch = Collator(CONFIG)([row(document_ids=one), row(document_ids=torch.arange(40) // 9)])
    assert batch["plan"].finished.tolist() == [2, 4]


def test_whole_rows_and_rows_that_change_later_have_no_plan():
    assert Collator(CONFIG)([row()]).keys() == {"input_ids", "labels"}
    breaks = torch.ones(40, dtype=torch.bool)
    batch = Collator(None)([row(chunk_breaks=breaks)])
    assert batch.keys() == {"input_ids", "labels", "chunk_breaks"}
