"""The same model on a GPU: same logits, same generation, host memory bitwise like device memory."""

import pytest
import torch

from gcattn import DRTCache
from gcattn.testing import random_config, random_model, random_tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("seed", range(6))
def test_gpu_gives_the_logits_and_gradients_of_the_cpu(seed):
    ids = random_tokens(random_config(seed), 2, 150, seed)
    results = []
    for device in ("cpu", "cuda"):
        model = random_model(random_config(seed)).to(device)
        output = model(ids.to(device), labels=ids.to(device))
        output.loss.backward()
        gradients = [p.grad.cpu() for p in model.parameters()]
        results.append([output.logits.detach().cpu(), *gradients])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_generation_on_the_gpu_equals_the_cpu_and_host_memory_is_bitwise_device_memory(seed):
    config = random_config(seed)
    model = random_model(config)
    ids = random_tokens(config, 2, 90, seed)
    expected = model.generate(ids, do_sample=False, max_new_tokens=40, pad_token_id=60)
    model.cuda()
    logits = []
    for tier in ("device", "host"):
        output = model.generate(
            ids.cuda(),
            past_key_values=DRTCache(config, tier),
            do_sample=False,
            max_new_tokens=40,
            pad_token_id=60,
            output_logits=True,
            return_dict_in_generate=True,
        )
        assert torch.equal(output.sequences.cpu(), expected)
        logits.append(torch.stack(output.logits))
    assert torch.equal(*logits)


def test_bfloat16_trains_and_decodes():
    config = random_config(0, num_attention_heads=4, num_key_value_heads=4, head_dim=8)
    model = random_model(config).to("cuda", torch.bfloat16)
    ids = random_tokens(config, 2, 200).cuda()
    loss = model.train()(ids, labels=ids).loss
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    new = model.eval().generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=60)
    assert new.shape == (2, 220)
