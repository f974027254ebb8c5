"""The retriever: what training draws by chance, and what it leaves alone."""

import math

import pytest
import torch

from gcattn.chunking import RegularLayout
from gcattn.memory.chunk_source import EncodedChunks
from gcattn.models import drt_tiny
from gcattn.nn.retriever import Retrieval, Retriever

CHUNKS, SPREAD = 40, 4.0


@pytest.fixture
def choose():
    """Return a function that lets a retriever choose 4 of the chunks before each of 40."""
    torch.manual_seed(0)
    config = drt_tiny()
    retriever = Retriever(config)
    num_tokens = CHUNKS * (config.chunk_size - 1)
    layout = RegularLayout(config.chunk_size, 1, num_tokens, torch.device("cpu"))
    hidden = torch.randn(1, CHUNKS * config.chunk_size, config.hidden_size)
    memory = EncodedChunks(
        landmarks=torch.randn(1, CHUNKS, config.hidden_size) / 8,
        documents=None,
        keys=torch.zeros(0),
        values=torch.zeros(0),
        lengths=torch.zeros(0),
    )

    def run(spread):
        return retriever(hidden, layout, memory, Retrieval(4, temperature_spread=spread))

    return run


def test_a_spread_of_temperatures_changes_weights_within_its_bounds_and_no_choice(choose):
    plain, drawn = choose(1.0), choose(SPREAD)
    assert torch.equal(plain.indices, drawn.indices)
    full = plain.indices[0, :, -1] >= 0
    assert full.sum() == CHUNKS - 4
    # differences of scores, and so of logarithms of weights, are divided by the temperature
    gaps = [
        s.weights[0, full].log()[:, :1] - s.weights[0, full].log()[:, 1:] for s in (plain, drawn)
    ]
    ratios = gaps[1] / gaps[0]
    torch.testing.assert_close(ratios, ratios[:, :1].expand_as(ratios), rtol=1e-2, atol=1e-2)
    temperatures = 1 / ratios[:, 0]
    assert temperatures.min() >= 1 / SPREAD * 0.98 and temperatures.max() <= SPREAD * 1.02
    # log-uniform: about as many above 1 as below, and far apart
    assert 8 <= (temperatures > 1).sum() <= CHUNKS - 12
    assert temperatures.log().std() > 0.5 * math.log(SPREAD) / math.sqrt(3)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_k": 1, "noise": "gauss"}, 'noise must be "gumbel" or "none", got \'gauss\''),
        ({"top_k": 1, "temperature_spread": 0.5}, "temperature_spread must be a number of at"),
        ({"top_k": 1, "temperature_spread": math.nan}, "temperature_spread must be a number of at"),
    ],
)
def test_a_retrieval_that_cannot_be_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Retrieval(**kwargs)
