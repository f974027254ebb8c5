"""A call that is planned ahead computes what one that plans itself does."""

import pickle
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from gcattn.models import DRTForCausalLM, causal_lm, drt_tiny, modeling_drt, plan_ahead

B, T = 2, 100


def rows(irregular):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 60, (B, T), generator=generator)
    given = {}
    if "breaks" in irregular:
        given["chunk_breaks"] = torch.rand(B, T, generator=generator) < 0.05
    if "documents" in irregular:
        given["document_ids"] = (torch.rand(B, T, generator=generator) < 0.03).cumsum(1)
    return ids, given


def gradients(model, ids, **given):
    model.zero_grad()
    output = model(ids, labels=ids, use_cache=False, **given)
    output.loss.backward()
    return output.logits.detach(), [p.grad for p in model.parameters()]


@pytest.mark.parametrize("irregular", ["breaks", "documents", "breaks and documents", ""])
@pytest.mark.parametrize("serves", ["next_chunk", "from_landmark"])
def test_logits_and_gradients_are_the_same(irregular, serves):
    torch.manual_seed(0)
    model = DRTForCausalLM(drt_tiny(vocab_size=64, retrieval_serves=serves)).train()
    ids, given = rows(irregular)
    plan = plan_ahead(model.config, (B, T), **given)
    # as it comes out of the process that read the rows
    plan = pickle.loads(pickle.dumps(plan)).to(ids.device, non_blocking=True)
    given.pop("chunk_breaks", None)
    ids, again = rows(irregular)
    expected = gradients(model, ids, **again)
    found = gradients(model, ids, plan=plan, **given)
    assert torch.equal(found[0], expected[0])
    assert all(torch.equal(x, y) for x, y in zip(found[1], expected[1], strict=True))


def test_layouts_of_both_decoders_stay_the_same_object():
    config = drt_tiny(vocab_size=64)
    plan = plan_ahead(config, (B, T), **rows("breaks")[1])
    for moved in (plan.to(torch.device("cpu")), pickle.loads(pickle.dumps(plan))):
        assert moved.upper is moved.layout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_cache": True}, "without a cache"),
        ({"chunk_breaks": torch.zeros(B, T, dtype=torch.bool)}, "neither"),
        ({"attention_mask": torch.ones(B, T)}, "neither"),
        ({"input_ids": torch.zeros(B, 3, dtype=torch.long)}, r"tokens \[2, 100\], the call"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(changes, message):
    model = DRTForCausalLM(drt_tiny(vocab_size=64)).eval()
    ids, given = rows("breaks")
    plan = plan_ahead(model.config, (B, T), **given)
    with pytest.raises(ValueError, match=message), torch.no_grad():
        model(**({"input_ids": ids, "plan": plan, "use_cache": False} | changes))


def test_a_planned_step_never_asks_what_a_tensor_holds(monkeypatch):
    # on a GPU each question would wait for the device; these two are asked on a CPU alone
    for module in (causal_lm, modeling_drt):
        monkeypatch.setattr(module, "check_ids", lambda *args: None)
    selection = sys.modules["gcattn.ops.chunk_topk.api"]
    monkeypatch.setattr(selection, "best_chunks_reference", first_chunks)
    config = drt_tiny(vocab_size=64, num_retrieval_groups=2, retrieval_serves="from_landmark")
    model = DRTForCausalLM(config).train()
    ids, given = rows("breaks")
    plan = plan_ahead(config, (B, T), **given)
    fake = FakeTensorMode()
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(fake.from_tensor(weight.data)))
    plan = plan._map(lambda part: part._map(fake.from_tensor))
    ids = fake.from_tensor(ids)
    with fake:
        loss = model(ids, labels=ids, plan=plan, use_cache=False, return_logits=False).loss
        loss.backward()
    assert loss.shape == ()


def first_chunks(queries, landmarks, *args):
    indices = torch.zeros(*queries.shape[:2], 4, dtype=torch.long)
    return indices, indices.float()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_planned_step_never_waits_for_the_gpu():
    model = DRTForCausalLM(drt_tiny(vocab_size=64)).cuda().train()
    ids, given = rows("breaks")
    plan, ids = plan_ahead(model.config, (B, T), **given).to(torch.device("cuda", 0)), ids.cuda()
    for mode in ("default", "error"):  # kernels are compiled in the first step
        torch.cuda.set_sync_debug_mode(mode)
        try:
            model(ids, labels=ids, plan=plan, use_cache=False, return_logits=False).loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_plan_is_pinned_and_moved_by_a_data_loader():
    config = drt_tiny(vocab_size=64)
    model = DRTForCausalLM(config).cuda().eval()
    ids, given = rows("breaks")
    plan = plan_ahead(config, (B, T), **given).pin_memory()
    assert plan.layout.columns.token.is_pinned()
    with pytest.raises(ValueError, match=r"pass plan.to\(device\)"):
        model(ids.cuda(), plan=plan, use_cache=False)
    here = plan.to(torch.device("cuda", 0), non_blocking=True)
    expected = model(ids.cuda(), chunk_breaks=given["chunk_breaks"].cuda(), use_cache=False)
    assert torch.equal(model(ids.cuda(), plan=here, use_cache=False).logits, expected.logits)
