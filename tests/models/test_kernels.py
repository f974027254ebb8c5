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
def test_in_bfloat16_gradients_are_as_exact_as_the_references_all_along_a_training(monkeypatch):
    """Not the loss curves: a millionth of a weight moves those by 0.02 within 200 steps."""
    config = drt_tiny(vocab_size=256, retrieval_noise="none")
    generator = torch.Generator().manual_seed(0)
    # every row says its first half again, so that attention and retrieval have something to learn
    half = torch.randint(0, 255, (200, 8, 120), generator=generator)
    rows = torch.cat([half, half], dim=-1).cuda()
    torch.manual_seed(1)
    model = DRTForCausalLM(config).cuda().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def gradient(ids, impl, in_bfloat16=True):
        use(monkeypatch, impl)
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=in_bfloat16):
            loss = model(ids, labels=ids, return_logits=False).loss
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])

    losses = []
    for step, ids in enumerate(rows):
        if step % 50 == 0:
            exact, plain, fast = (
                gradient(ids, "reference", False),
                gradient(ids, "reference"),
                gradient(ids, "triton"),
            )
            errors = [((x[1] - exact[1]).norm() / exact[1].norm()).item() for x in (plain, fast)]
            print(f"step {step}: losses {exact[0]:.5f}, {plain[0]:.5f}, {fast[0]:.5f}, {errors}")
            assert errors[1] < 1.5 * errors[0]
            assert (fast[0] - exact[0]).abs() < 1.5 * (plain[0] - exact[0]).abs() + 1e-3
        losses.append(gradient(ids, "triton")[0])
        optimizer.step()
    curve = torch.stack(losses)
    assert curve[-20:].mean() < curve[:20].mean() - 0.1
