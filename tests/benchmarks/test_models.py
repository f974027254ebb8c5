"""Benchmarks of whole models: what is compared, and that what is timed is what is meant."""

import pytest
import torch
from transformers.cache_utils import DynamicCache

from benchmarks.decode import bench_decoding
from benchmarks.filled_cache import filled_cache
from benchmarks.full_attention import (
    filled_full_cache,
    filled_static_cache,
    full_attention_model,
)
from benchmarks.prefill import bench_prefill
from benchmarks.train import bench_training, compared_models
from gcattn.models import DRTForCausalLM, drt_34m, drt_tiny
from gcattn.models.cache_name import named_cache
from gcattn.testing import random_tokens

CPU = torch.device("cpu")
CONFIG = drt_tiny(vocab_size=97)


def test_the_transformers_compared_with_differ_in_retrieval_and_layers_only():
    config = drt_34m(num_retrieval_groups=3, window_size=128)
    drt, same, more = compared_models(config).values()
    assert drt.to_dict() == config.to_dict()
    for other, layers in ((same, 6), (more, 8)):
        assert other.retrieval_method == "none"
        assert other.num_hidden_layers == layers
        assert (other.hidden_size, other.window_size) == (512, 128)
    assert list(compared_models(config))[2] == "sliding window, +2 layers"


def test_drts_with_fewer_reading_layers_are_named_by_them():
    models = compared_models(drt_34m(), [1, 3])
    names = ["drt, 3 of 3 layers read", "drt, 1 of 3 layers read"]
    assert list(models)[:2] == names
    assert [models[name].cross_attention_interval for name in names] == [1, 3]


@pytest.mark.slow
def test_a_training_step_has_speed_utilisation_and_ratios():
    metrics = bench_training(
        CONFIG,
        [64],
        CPU,
        batch_tokens=128,
        compile_model=False,
        steps=3,
        warmup=1,
        matmul_flops=1e12,
    )
    measured = metrics["lengths"]["64"]
    assert (measured["rows"], measured["tokens_per_row"]) == (2, 60)
    drt = measured["models"]["drt, 2 of 2 layers read"]
    assert drt["repetitions"] == 3
    assert drt["tokens_per_second"] == pytest.approx(120 / drt["median_ms"] * 1e3)
    flops = CONFIG.flops_per_token(training=True) * drt["tokens_per_second"]
    assert drt["mfu_of_measured_matmul"] == pytest.approx(flops / 1e12)
    assert drt["mfu_of_data_sheet"] is None
    more = "sliding window, +2 layers"
    ratio = drt["median_ms"] / measured["models"][more]["median_ms"]
    assert drt["step_time_over"][more] == pytest.approx(ratio)
    assert "step_time_over" not in measured["models"][more]
    assert metrics["parameters"]["drt, 2 of 2 layers read"] == CONFIG.count_parameters()


def test_a_row_must_hold_a_chunk():
    with pytest.raises(ValueError, match="must hold a chunk of 15 tokens, got 9"):
        bench_training(CONFIG, [9], CPU, batch_tokens=16, compile_model=False)


@pytest.mark.parametrize("tier", ["device", "host"])
def test_a_filled_cache_has_the_context_and_a_retrieval_to_serve(tier):
    model = DRTForCausalLM(CONFIG).eval()
    cache = filled_cache(model, tier, 2, 300, seed=0)
    assert cache.memory.num_chunks.tolist() == [20, 20]
    assert cache.position.state.num_chunks.tolist() == [20, 20]
    assert cache.position.state.open_length.tolist() == [0, 0]
    # the next token reads K chunks
    indices = cache.last_retrievals[0].tensors()["indices"]
    assert (indices >= 0).all()
    assert indices.shape == (2, CONFIG.retrieval_top_k)
    with pytest.raises(ValueError, match="must hold two chunks"):
        filled_cache(model, tier, 1, 20, seed=0)


def test_full_attention_with_room_equals_a_growing_cache():
    torch.manual_seed(0)
    model = full_attention_model(CONFIG, CPU, torch.float32)
    assert model.config.num_hidden_layers == CONFIG.num_hidden_layers
    roomy = filled_full_cache(model, 2, 40, room=3)
    growing = DynamicCache()
    for number, layer in enumerate(roomy.layers):
        growing.update(layer.keys.clone(), layer.values.clone(), number)
    tokens = random_tokens(CONFIG, 2, 3)
    with torch.no_grad():
        for step in range(3):
            token = tokens[:, step : step + 1]
            found = model(token, **named_cache(roomy), use_cache=True).logits
            expected = model(token, **named_cache(growing), use_cache=True).logits
            torch.testing.assert_close(found, expected)
    assert roomy.get_seq_length() == 43


def test_full_attention_with_fixed_shapes_equals_a_growing_cache():
    torch.manual_seed(0)
    model = full_attention_model(CONFIG, CPU, torch.float32)
    fixed = filled_static_cache(model, 2, 40, room=3)
    growing = DynamicCache()
    for number, layer in enumerate(fixed.layers):
        growing.update(layer.keys[:, :, :40].clone(), layer.values[:, :, :40].clone(), number)
    tokens = random_tokens(CONFIG, 2, 3)
    with torch.no_grad():
        for step in range(3):
            token = tokens[:, step : step + 1]
            found = model(token, **named_cache(fixed), use_cache=True).logits
            expected = model(token, **named_cache(growing), use_cache=True).logits
            torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_prefill_is_measured_for_every_length():
    metrics = bench_prefill(
        CONFIG,
        [100, 200],
        CPU,
        torch.float32,
        segment_length=64,
        trials=2,
        with_full_attention=True,
    )
    assert list(metrics) == ["gcattn", "full attention (SDPA)"]
    assert metrics["gcattn"]["parameters"] == CONFIG.count_parameters()
    for model in metrics.values():
        for length, row in model["lengths"].items():
            assert row["repetitions"] == 2
            assert row["tokens_per_second"] == pytest.approx(int(length) / row["median_ms"] * 1e3)


def test_who_reads_too_slowly_gets_no_longer_prompt():
    metrics = bench_prefill(CONFIG, [64, 128], CPU, torch.float32, trials=1, slowest_seconds=0.0)
    rows = metrics["gcattn"]["lengths"]
    assert rows["64"]["median_ms"] > 0
    assert rows["128"] == {"unavailable": "not run: took above 0 s at 64 tokens"}


@pytest.mark.slow
def test_decoding_is_measured_with_either_memory():
    metrics = bench_decoding(CONFIG, [60, 600], CPU, torch.float32, num_tokens=32)
    alone = ["gcattn, device memory", "gcattn, host memory"]
    assert [name for name in metrics if not name.endswith("generate()")] == alone
    for name, rows in metrics.items():
        for row in rows.values():
            assert 0 < row["p20_ms"] <= row["median_ms"] <= row["p90_ms"]
            assert row["tokens"] == 32
            assert name not in alone or row["closing_median_ms"] > 0
    device, host = (metrics[name]["600"]["bytes"] for name in alone)
    assert device["host"] == 0 and host["host"] > host["device"]
