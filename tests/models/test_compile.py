"""Training compiles into one graph: no break, no wait for the host, the same numbers."""

import pytest
import torch

from gcattn.nn.retriever import Retrieval
from gcattn.testing import random_config, random_model, random_tokens

CASES = [
    pytest.param(
        {"retrieval_serves": "next_chunk", "num_retrieval_groups": 1, "num_upper_layers": 1},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        {"retrieval_serves": "from_landmark", "num_retrieval_groups": 2, "num_upper_layers": 2},
        marks=pytest.mark.slow,
    ),
    {
        "retrieval_method": "none",
        "num_retrieval_groups": 1,
        "num_upper_layers": 1,
        "num_lower_layers": 1,
    },
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_compiles_without_graph_breaks(case):
    config = random_config(3, **case)
    model = random_model(config).train()
    ids = random_tokens(config, 2, 3 * config.chunk_size)

    plain = Retrieval(config.retrieval_top_k)

    def loss(ids):
        # drawn from the generator, the noise would differ between compiled and eager code
        return model(ids, labels=ids, use_cache=False, return_logits=False, retrieval=plain).loss

    gradients = []
    # fullgraph raises at the first graph break
    for function in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        function(ids).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain)
