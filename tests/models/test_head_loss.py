"""The loss is that of what the output layer computes, whatever it has become."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gcattn.models.head_loss import is_plain_linear
from gcattn.testing import random_config, random_model, random_tokens


class Adapter(nn.Module):
    """A wrapped layer with something on top, as adapters are."""

    def __init__(self, inner, size):
        super().__init__()
        self.inner = inner
        self.extra = nn.Linear(size, inner.weight.shape[0], bias=False, dtype=inner.weight.dtype)
        self.weight = inner.weight

    def forward(self, x):
        return self.inner(x) + self.extra(x)


@pytest.fixture
def model():
    sizes = {"chunk_size": 7, "window_size": 7}
    return random_model(random_config(5, tie_word_embeddings=False, **sizes))


def with_adapter(model):
    model.lm_head = Adapter(model.lm_head, model.config.hidden_size)


def with_hook(model):
    model.lm_head.register_forward_hook(lambda _, args, output: 2 * output)


def with_forward(model):
    forward = model.lm_head.forward
    model.lm_head.forward = lambda x: 3 * forward(x)


def with_bias(model):
    model.lm_head.bias = nn.Parameter(torch.randn(61, dtype=torch.float64))


@pytest.mark.parametrize("change", [None, with_adapter, with_hook, with_forward, with_bias])
@pytest.mark.parametrize("return_logits", [True, False])
def test_loss_and_gradients_follow_the_logits(model, change, return_logits):
    if change is not None:
        change(model)
    assert is_plain_linear(model.lm_head) == (change is None)
    ids = random_tokens(model.config, 2, 30)
    logits = model(ids).logits[:, :-1].flatten(0, 1)
    expected = F.cross_entropy(logits, ids[:, 1:].flatten())
    wanted = torch.autograd.grad(expected, list(model.lm_head.parameters()))
    loss = model(ids, labels=ids, return_logits=return_logits).loss
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, list(model.lm_head.parameters()))
    torch.testing.assert_close(found, wanted)


def test_a_wrapped_embedding_is_heard(model):
    ids = random_tokens(model.config, 2, 30)
    before = model(ids).logits
    model.model.embed_tokens.register_forward_hook(lambda _, args, output: 2 * output)
    assert not torch.allclose(model(ids).logits, before)
    model.model.embed_landmark.register_forward_hook(lambda _, args, output: output + 1)
    after = model(ids, labels=ids)
    expected = F.cross_entropy(after.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(after.loss, expected)


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_an_offloaded_model_computes_the_same(model, where, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    ids = random_tokens(model.config, 2, 30)
    with torch.no_grad():
        expected = model(ids, labels=ids)
        if where == "cpu":
            accelerate.cpu_offload(model, execution_device="cpu")
        else:
            accelerate.disk_offload(model, str(tmp_path), execution_device="cpu")
        found = model(ids, labels=ids)
    assert model.lm_head.weight.is_meta
    assert torch.equal(found.logits, expected.logits)
    torch.testing.assert_close(found.loss, expected.loss)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "q_proj"])
def test_adapters_of_peft_count_and_can_be_merged(model, target):
    peft = pytest.importorskip("peft")
    ids = random_tokens(model.config, 2, 30)
    plain = model(ids, labels=ids)
    config = peft.LoraConfig(r=2, target_modules=[target], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).eval()
    output = adapted(input_ids=ids, labels=ids)
    assert not torch.allclose(output.loss, plain.loss)
    expected = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)
    merged = adapted.merge_and_unload()(input_ids=ids, labels=ids)
    torch.testing.assert_close(merged.logits, output.logits)
    torch.testing.assert_close(merged.loss, output.loss)


def test_quantised_layers_of_torchao_count(model):
    quantization = pytest.importorskip("torchao.quantization")
    model.float()
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    assert not is_plain_linear(model.lm_head)
    ids = random_tokens(model.config, 2, 30)
    with torch.no_grad():
        output = model(ids, labels=ids)
    expected = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)
