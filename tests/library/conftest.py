"""A model of a few thousand weights that knows the shipped tokenizer."""

import pytest

from gcattn.data import load_tokenizer
from gcattn.library.state import BuildSettings
from gcattn.testing import random_config, random_model


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer):
    config = random_config(
        5,
        vocab_size=len(tokenizer),
        chunk_size=9,
        window_size=6,
        num_lower_layers=2,
        embedding_convolution_size=2,
        key_convolution_size=2,
    )
    return random_model(config).float()


@pytest.fixture(scope="session")
def settings():
    return BuildSettings(block_tokens=64, part_bytes=1, dtype="float32")
