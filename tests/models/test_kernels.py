"""A model on the Triton kernels learns what it learns on the reference."""

import os
from functools import partial

import pytest
import torch

from gcattn.models import DRTForCausalLM, drt_tiny
from gcattn.ops import chunk_topk, grouped_cross_attention, sliding_window_attention

pytest.importorskip("triton", reason="Triton is not installed")
ON_GPU = torch.cuda.is_available()
pytestmark = pytest.mark.skipif(
    not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs a GPU or TRITON_INTERPRET=1",
)
USES = {
    "gcattn.nn.cross_attention.grouped_cross_attention": grouped_cross_attention,
    "gcattn.nn.self_attention.sliding_window_attention": sliding_window_attention,
    "gcattn.memory.chunk_source.chunk_topk": chunk_topk,
}


def use(monkeypatch, impl):
    for place, operator in USES.items():
        monkeypatch.setattr(place, partial(operator, impl=impl))


def test_loss_and_gradients_are_those_of_the_reference(monkeypatch):
    torch.manual_seed(0)
    config = drt_tiny(
        vocab_size=50,
        hidden_size=32,
        num_lower_layers=1,
        num_upper_layers=1,
        softmax_off_by_one=True,
        sink_logit=0.5,
    )
    device = "cuda" if ON_GPU else "cpu"
    model = DRTForCausalLM(config).train().to(device)
    ids = torch.randint(0, 49, (1, 50), device=device)
    results = []
    for impl in ("reference", "triton"):
        use(monkeypatch, impl)
        model.zero_grad()
        loss = model(ids, labels=ids, return_logits=False).loss
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
def test_200_steps_of_training_follow_the_loss_curve_of_the_reference(monkeypatch):
    config = drt_tiny(vocab_size=256, retrieval_noise="none")
    generator = torch.Generator().manual_seed(0)
    # every row says its first half again, so that attention and retrieval have something to learn
    half = torch.randint(0, 255, (200, 8, 120), generator=generator)
    rows = torch.cat([half, half], dim=-1).cuda()
    curves = []
    for impl in ("reference", "triton"):
        use(monkeypatch, impl)
        torch.manual_seed(1)
        model = DRTForCausalLM(config).cuda().train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        losses = []
        for ids in rows:
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(ids, labels=ids, return_logits=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        curves.append(torch.stack(losses).cpu())
    plain, fast = curves
    print(f"loss at 1, 100, 200: {plain[[0, 99, 199]].tolist()} and {fast[[0, 99, 199]].tolist()}")
    assert plain[-20:].mean() < plain[:20].mean() - 0.1
    assert (plain - fast).abs().mean() < 0.01
    assert (plain[-20:].mean() - fast[-20:].mean()).abs() < 0.02
