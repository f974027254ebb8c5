"""Compiled, every operator gives the gradients of its reference, whatever its arguments share."""

import os

import pytest
import torch

from gcattn import grouped_cross_attention, sliding_window_attention
from gcattn.ops.chunk_topk import chunk_topk
from gcattn.ops.landmark_attention import landmark_attention

pytest.importorskip("triton", reason="Triton is not installed")
ON_GPU = torch.cuda.is_available()
pytestmark = pytest.mark.skipif(
    not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs a GPU or TRITON_INTERPRET=1",
)
DEVICE = "cuda" if ON_GPU else "cpu"
BACKENDS = ["aot_eager", pytest.param("inductor", marks=[pytest.mark.slow])]


def window(x, impl):
    documents = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device)
    named = {"query_documents": documents, "key_documents": documents}
    return sliding_window_attention(x, x, x, window_size=8, impl=impl, **named)


def pool(x, impl):
    slots = x.unflatten(1, (4, 16))
    indices = torch.tensor([[[-1, -1], [0, -1], [0, 1], [2, 1]]], device=x.device)
    weights = indices.clamp_min(0).float() / 3
    return grouped_cross_attention(slots, slots, slots, indices, weights, impl=impl)


def blocks(x, impl):
    return landmark_attention(x, x, x, chunk_size=16, impl=impl)


def choice(x, impl):
    asked = x.flatten(2)[:, ::16]
    visible = torch.arange(4, device=x.device)[None]
    return chunk_topk(asked, asked, visible, 2, impl=impl).weights


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("operator", [window, pool, blocks, choice], ids=lambda f: f.__name__)
def test_one_tensor_in_every_place_gets_the_whole_gradient(operator, backend):
    torch.manual_seed(0)
    x = torch.randn(1, 64, 2, 16, device=DEVICE)

    def gradient(impl, function=operator):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(function(leaf, impl).square().sum(), leaf)[0]

    torch._dynamo.reset()
    compiled = gradient("triton", torch.compile(operator, backend=backend, fullgraph=True))
    torch.testing.assert_close(compiled, gradient("reference"), rtol=1e-3, atol=1e-4)
