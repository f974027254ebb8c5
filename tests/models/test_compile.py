"""Training compiles into one graph: no break, no wait for the host, the same numbers."""

import pytest
import torch

from gcattn.nn.retriever import Retrieval
from gcattn.testing import random_config, random_model, random_tokens

ONE_GROUP = {"num_retrieval_groups": 1, "num_upper_layers": 1, "num_lower_layers": 1}
TWO_GROUPS = {"num_retrieval_groups": 2, "num_upper_layers": 2}
# "eager" runs the graph as it was traced, "aot_eager" traces its backward pass too
CASES = [
    ("eager", ONE_GROUP | {"num_encoder_layers": 1, "retrieval_serves": "next_chunk"}),
    *(
        pytest.param("aot_eager", case, marks=pytest.mark.slow)
        for case in (
            ONE_GROUP | {"retrieval_serves": "next_chunk"},
            TWO_GROUPS | {"retrieval_serves": "from_landmark"},
            ONE_GROUP | {"retrieval_method": "none"},
        )
    ),
]


@pytest.mark.parametrize(("backend", "case"), CASES, ids=str)
def test_training_compiles_without_graph_breaks(backend, case):
    config = random_config(3, **case)
    model = random_model(config).train()
    ids = random_tokens(config, 2, 3 * config.chunk_size)

    plain = Retrieval(config.retrieval_top_k)

    def loss(ids):
        # drawn from the generator, the noise would differ between compiled and eager code
        return model(ids, labels=ids, use_cache=False, return_logits=False, retrieval=plain).loss

    gradients = []
    # fullgraph raises at the first graph break
    for function in (loss, torch.compile(loss, backend=backend, fullgraph=True)):
        model.zero_grad()
        function(ids).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain)
