"""A row whose documents only retrieval crosses is read as a memory of files."""

import pytest
import torch

from gcattn import DRTCache, MemoryWriter, open_memory
from gcattn.library.blocks import block_of
from gcattn.library.encoding import EncodedText
from gcattn.library.reading import begin_block
from gcattn.library.state import BuildSettings
from gcattn.models import plan_ahead
from gcattn.nn.retriever import Retrieval
from gcattn.testing import random_config, random_model, random_tokens

LENGTHS = [33, 5, 61, 1, 12, 40]  # the last document asks
EXACT = {"rtol": 0, "atol": 1e-10}


def model_of(seed, **changes):
    return random_model(random_config(seed, chunk_size=7, num_upper_layers=6, **changes))


def row_of(model, lengths=LENGTHS):
    ids = random_tokens(model.config, 1, sum(lengths), seed=1)
    document_ids = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))[None]
    return ids, document_ids


def across(model):
    return Retrieval(model.config.retrieval_top_k, across_documents=True)


def trained_on(model, ids, document_ids, **given):
    """Logits as training computes them, with the plan of a data-loader's process."""
    given = {"retrieval": across(model)} | given
    breaks = given.pop("chunk_breaks", None)
    plan = plan_ahead(
        model.config, tuple(ids.shape), document_ids=document_ids, chunk_breaks=breaks
    )
    return model(ids, document_ids=document_ids, plan=plan, use_cache=False, **given).logits


def memory_of(folder, model, files):
    """What `gcattn memory build` makes of the files, each a document."""
    settings = BuildSettings(block_tokens=10_000, part_bytes=1, dtype="float64")
    texts = [EncodedText(x[0].int().numpy(), x[0].int().numpy()) for x in files]
    with torch.no_grad(), MemoryWriter(folder, model) as writer:
        read = begin_block(model, block_of(texts), settings)()
        chunk = token = 0
        for number, (count, ids) in enumerate(zip(read.counts, files, strict=True)):
            here, chunk, token = slice(chunk, chunk + count), chunk + count, token + ids.shape[1]
            writer.begin(f"file {number}")
            kept = (read.landmarks, read.keys, read.values, read.lengths)
            writer.append(*(x[here] for x in kept), ids[0])
            writer.end()
        writer.checkpoint()
    return open_memory(folder)


# the two seeds of a pair differ in every option that has two values
@pytest.mark.parametrize("seed", [0, 1, 6, 7])
def test_training_reads_documents_as_a_memory_of_files_is_read_and_asked(seed, tmp_path):
    model = model_of(seed)
    ids, document_ids = row_of(model)
    breaks = torch.zeros_like(ids, dtype=torch.bool)
    breaks[:, -15] = True  # as a question closes its chunk
    *files, question = ids.split(LENGTHS, dim=1)
    cache = DRTCache(model.config, memory=memory_of(tmp_path, model, files))
    with torch.no_grad():
        found = trained_on(model.train(), ids, document_ids, chunk_breaks=breaks)
        asked = {"past_key_values": cache, "chunk_breaks": breaks[:, -LENGTHS[-1] :]}
        expected = model.eval()(question, **asked).logits
    torch.testing.assert_close(found[:, -LENGTHS[-1] :], expected, **EXACT)


def test_nothing_but_retrieval_crosses_the_beginning_of_a_document():
    model = model_of(1, retrieval_method="off")
    ids, document_ids = row_of(model)
    with torch.no_grad():
        found = trained_on(model, ids, document_ids).split(LENGTHS, dim=1)
        for logits, document in zip(found, ids.split(LENGTHS, dim=1), strict=True):
            torch.testing.assert_close(logits, model(document).logits, **EXACT)


def test_the_first_chunk_of_a_document_is_served_by_nothing_and_later_ones_by_other_documents():
    model = model_of(0, retrieval_serves="next_chunk", retrieval_top_k=9)
    ids, document_ids = row_of(model)
    other = torch.cat([random_tokens(model.config, 1, 33, seed=2), ids[:, 33:]], dim=1)
    with torch.no_grad():
        one, two = (trained_on(model, x, document_ids)[0, -LENGTHS[-1] :] for x in (ids, other))
        alone = Retrieval(9)
        apart = [trained_on(model, x, document_ids, retrieval=alone)[0] for x in (ids, other)]
    per_chunk = model.config.chunk_size - 1
    torch.testing.assert_close(one[:per_chunk], two[:per_chunk], **EXACT)
    assert ((one - two)[per_chunk:].abs().amax(-1) > 1e-6).all()
    torch.testing.assert_close(apart[0][33:], apart[1][33:], **EXACT)


def test_a_row_of_documents_beside_another_row_is_read_as_alone():
    model = model_of(7)
    rows = [row_of(model), row_of(model, [90, 62]), row_of(model, [152])]
    ids, document_ids = (torch.cat(x) for x in zip(*rows, strict=True))
    breaks = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.05
    with torch.no_grad():
        together = trained_on(model, ids, document_ids, chunk_breaks=breaks)
        for number in range(len(rows)):
            row = slice(number, number + 1)
            alone = trained_on(model, ids[row], document_ids[row], chunk_breaks=breaks[row])
            torch.testing.assert_close(together[row], alone, **EXACT)


def test_documents_of_a_stream_are_read_in_segments_as_at_once():
    model = model_of(6)
    ids, document_ids = row_of(model)
    cache, read = DRTCache(model.config), []
    with torch.no_grad():
        whole = trained_on(model, ids, document_ids)
        for at in range(0, ids.shape[1], 29):
            here = slice(at, at + 29)
            given = {"document_ids": document_ids[:, here], "retrieval": across(model)}
            read.append(model(ids[:, here], past_key_values=cache, **given).logits)
    torch.testing.assert_close(torch.cat(read, dim=1), whole, **EXACT)


def test_answers_teach_the_reading_of_other_documents():
    model = model_of(1).train()
    ids, document_ids = row_of(model)
    embeds = model.model.embed_tokens(ids).detach().requires_grad_()
    logits = model(
        inputs_embeds=embeds,
        document_ids=document_ids,
        retrieval=across(model),
        use_cache=False,
    ).logits
    logits[:, -1].sum().backward()
    assert (embeds.grad[0, :33].abs().sum() > 0) and embeds.grad.isfinite().all()
