"""Claims about perplexity by length and position."""

import math

import pytest
import torch

from gcattn.data import load_tokenizer
from gcattn.evals.length_result import bucket_bounds
from gcattn.evals.perplexity import evaluate_perplexity
from gcattn.evals.token_losses import token_losses


def document(shards, number, length):
    return torch.from_numpy(shards.document(number)[:length].astype("int64"))


@pytest.mark.parametrize("name", ["llama", "drt"])
def test_results_are_means_over_the_documents_of_a_length(models, shards, name):
    (result,) = evaluate_perplexity(models[name], shards, [101], segment_length=32)
    losses = torch.stack(
        [token_losses(models[name], document(shards, n, 101), segment_length=32) for n in (1, 2, 3)]
    ).double()
    means = losses.mean(1)
    assert result.num_documents == 3
    assert result.num_predicted_tokens == 300
    assert result.loss.mean == pytest.approx(float(means.mean()), rel=1e-5)
    assert result.loss.standard_error == pytest.approx(float(means.std()) / math.sqrt(3), rel=1e-3)
    assert result.perplexity == pytest.approx(math.exp(result.loss.mean))


def test_position_buckets_add_up_to_the_whole_loss(models, shards):
    for result in evaluate_perplexity(models["llama"], shards, [40, 199]):
        bounds = [(bucket.start, bucket.stop) for bucket in result.positions]
        assert [start for start, _ in bounds] == [2**i for i in range(len(bounds))]
        assert bounds[-1][1] == result.length
        total = sum((b.stop - b.start) * b.loss.mean for b in result.positions)
        assert total == pytest.approx((result.length - 1) * result.loss.mean)


@pytest.mark.parametrize("length", [2, 3, 4, 5, 17, 1024])
def test_buckets_hold_every_position_once(length):
    held = [position for bounds in bucket_bounds(length) for position in range(*bounds)]
    assert held == list(range(1, length))


def test_one_reading_serves_every_length(models, shards):
    alone = [evaluate_perplexity(models["llama"], shards, [n])[0] for n in (32, 150)]
    together = evaluate_perplexity(models["llama"], shards, [32, 150])
    for one, other in zip(alone, together, strict=True):
        assert other.loss.mean == pytest.approx(one.loss.mean, rel=1e-5)
        assert other.num_documents == one.num_documents


def test_bits_per_byte_divide_by_the_text_of_the_predicted_tokens(models, shards):
    (result,) = evaluate_perplexity(models["llama"], shards, [230])
    text = load_tokenizer().backend_tokenizer.to_str()
    assert "ByteLevel" in text
    token_ids = shards.document(2)[1:].tolist()
    num_bytes = sum(map(len, load_tokenizer().convert_ids_to_tokens(token_ids)))
    expected = result.loss.mean * 229 / math.log(2) / num_bytes
    assert result.bits_per_byte.mean == pytest.approx(expected, rel=1e-6)


def test_one_document_has_no_standard_error(models, shards):
    (result,) = evaluate_perplexity(models["llama"], shards, [40], max_documents=1)
    assert result.num_documents == 1
    assert result.loss.standard_error is None


def test_max_documents_counts_for_each_length(models, shards):
    results = evaluate_perplexity(models["llama"], shards, [40, 150], max_documents=1)
    assert [result.num_documents for result in results] == [1, 1]


def test_progress_ends_at_its_total(models, shards):
    calls = []
    evaluate_perplexity(
        models["llama"],
        shards,
        [40, 101],
        segment_length=64,
        on_progress=lambda *call: calls.append(call),
    )
    assert calls[-1] == (39 + 3 * 100, 39 + 3 * 100)


def test_a_length_without_documents_is_refused(models, shards):
    with pytest.raises(ValueError, match="has 231 tokens, the longest has 230"):
        evaluate_perplexity(models["llama"], shards, [40, 231])


def test_ids_that_the_model_does_not_know_are_refused(make_llama, shards):
    with pytest.raises(ValueError, match="tokenizer of 16383 tokens"):
        evaluate_perplexity(make_llama(100), shards, [40])


def test_losses_that_are_not_finite_are_refused(make_llama, shards):
    model = make_llama()
    model.lm_head.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        evaluate_perplexity(model, shards, [40])


def test_host_memory_gives_the_losses_of_device_memory(saved_drt, shards):
    from gcattn.evals.model_loading import load_causal_lm

    results = [
        evaluate_perplexity(
            load_causal_lm(str(saved_drt), device="cpu", memory_tier=tier),
            shards,
            [150],
            segment_length=20,
        )
        for tier in ("device", "host")
    ]
    assert results[0] == results[1]
