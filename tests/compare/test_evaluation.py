"""Claims about losses by position, and about what retrieval is worth in the same weights."""

import pytest
import torch

from gcattn.compare.evaluation import evaluate_model, losses_by_position
from gcattn.compare.suite import Suite, Text
from gcattn.data import TokenShards, TokenShardWriter, load_tokenizer
from gcattn.evals.token_losses import token_losses
from gcattn.models import DRTForCausalLM, drt_tiny

LENGTHS, ENDS = (40, 200, 230), [16, 64, 200]
CHUNK = 16


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    tokenizer, folder = load_tokenizer(), tmp_path_factory.mktemp("corpus") / "shards"
    draw = torch.Generator().manual_seed(0)
    with TokenShardWriter(folder, tokenizer, "test") as writer:
        for length in LENGTHS:
            ids = torch.randint(2, 16_000, (length,), generator=draw).numpy()
            writer.append(ids, len(tokenizer.decode(ids).encode()))
    return folder


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    torch.manual_seed(0)
    tokenizer, folder = load_tokenizer(), tmp_path_factory.mktemp("saved") / "model"
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    config = drt_tiny(vocab_size=len(tokenizer), chunk_size=CHUNK, window_size=24, **sizes)
    DRTForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def suite(shards):
    return Suite(
        name="x",
        base={},
        models={"drt": {}},
        texts={"text": {"data": [str(shards)], "length": 200}},
        learning_rates=[1e-3],
        positions=ENDS,
        window="drt",
    )


def test_ranges_are_means_of_the_tokens_that_see_so_many(shards, model_folder):
    model = DRTForCausalLM.from_pretrained(model_folder).eval()
    ranges = losses_by_position(model, Text(data=[str(shards)], length=200), ENDS)
    assert ranges.shape == (2, 3)  # the document of 40 tokens is too short
    ids = torch.from_numpy(TokenShards(shards).document(1)[:200].astype("int64"))
    losses = token_losses(model, ids).double()
    expected = [losses[:15].mean(), losses[15:63].mean(), losses[63:199].mean()]
    torch.testing.assert_close(ranges[0], torch.stack(expected))


def test_a_range_beyond_the_text_is_nothing(shards, model_folder):
    model = DRTForCausalLM.from_pretrained(model_folder).eval()
    ranges = losses_by_position(model, Text(data=[str(shards)], length=200), [64, 200, 400])
    assert ranges[:, 2].isnan().all()
    assert ranges[:, :2].isfinite().all()


def test_retrieval_off_changes_nothing_before_anything_was_retrieved(shards, model_folder):
    wanted = suite(shards)
    first = 2 * (CHUNK - 1)  # the third chunk is the first that is served
    wanted = Suite(**(vars(wanted) | {"positions": [first, 200]}))
    losses = evaluate_model(model_folder, wanted, seed=0)["text"]["losses"]
    learned, off, drawn = (torch.tensor(losses[way]) for way in ("learned", "off", "random"))
    torch.testing.assert_close(learned[:, 0], off[:, 0], rtol=0, atol=1e-6)
    assert (learned[:, 1] - off[:, 1]).abs().min() > 1e-6
    assert (learned[:, 1] - drawn[:, 1]).abs().max() > 1e-6


def test_a_model_without_retrieval_is_measured_as_it_is(shards, tmp_path):
    torch.manual_seed(0)
    tokenizer = load_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    config = drt_tiny(vocab_size=len(tokenizer), retrieval_method="none", **sizes)
    DRTForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = evaluate_model(tmp_path, suite(shards), seed=0)["text"]
    assert list(text["losses"]) == ["learned"]
    assert len(text["documents"]) == 2
