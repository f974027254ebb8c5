"""A small corpus and two small models that read it: ours and a plain Llama."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gcattn.data import TokenShards, TokenShardWriter, load_tokenizer
from gcattn.models import DRTForCausalLM, drt_tiny

VOCAB_SIZE = 16_384
DOCUMENT_LENGTHS = (40, 101, 230, 199)


@pytest.fixture(scope="session")
def shards_folder(tmp_path_factory):
    tokenizer = load_tokenizer()
    folder = tmp_path_factory.mktemp("corpus") / "shards"
    draw = np.random.default_rng(0)
    with TokenShardWriter(folder, tokenizer, "test") as writer:
        for length in DOCUMENT_LENGTHS:
            token_ids = draw.integers(2, VOCAB_SIZE - 1, length)
            writer.append(token_ids, len(tokenizer.decode(token_ids).encode()))
    return folder


@pytest.fixture(scope="session")
def shards(shards_folder):
    return TokenShards(shards_folder)


def build_llama(vocab_size=VOCAB_SIZE):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


def build_drt(**overrides):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "num_lower_layers": 1,
        "num_upper_layers": 2,
        "num_encoder_layers": 1,
        "num_retrieval_groups": 2,
        "chunk_size": 7,
        "retrieval_top_k": 3,
        "window_size": 9,
        "initializer_range": 0.5,
    }
    return DRTForCausalLM(drt_tiny(**(sizes | overrides))).eval()


@pytest.fixture(scope="session")
def models():
    return {"llama": build_llama(), "drt": build_drt()}


@pytest.fixture(scope="session")
def saved_drt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "drt"
    build_drt().save_pretrained(folder)
    load_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_llama():
    return build_llama


@pytest.fixture(scope="session")
def make_drt():
    return build_drt
