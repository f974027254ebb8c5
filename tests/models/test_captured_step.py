"""A captured token is replayed only while the model would compute the same."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize

from gcattn import DRTCache
from gcattn.models import captured_step
from gcattn.testing import random_config, random_model, random_tokens

EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def swap_weight(layer):
    layer.weight = nn.Parameter(2 * layer.weight)


def move_weight(layer):
    layer.weight.data = 2 * layer.weight.data


def override_forward(layer):
    original = layer.forward
    layer.forward = lambda x: 2 * original(x)


CHANGES = {
    "hook": lambda layer: layer.register_forward_hook(lambda m, x, out: 2 * out),
    "hook before": lambda layer: layer.register_forward_pre_hook(lambda m, x: (2 * x[0],)),
    "hook for all": lambda layer: register_module_forward_hook(
        lambda m, x, out: 2 * out if m is layer else None
    ),
    "weight": swap_weight,
    "place of a weight": move_weight,
    "forward": override_forward,
    "parametrization": lambda layer: parametrize.register_parametrization(
        layer, "weight", Doubled()
    ),
}


def begun(num_rows=2):
    # few layers: what is tested is when a graph is used, not what it computes
    sizes = {"num_lower_layers": 1, "num_upper_layers": 2, "num_retrieval_groups": 2}
    model = random_model(random_config(5, chunk_size=33, window_size=7, **sizes))
    ids = random_tokens(model.config, num_rows, 80)
    caches = DRTCache(model.config), DRTCache(model.config)
    for cache in caches:
        model(ids[:, :33], past_key_values=cache)
    return model, ids, *caches


def follow(model, ids, fast, plain, tokens):
    for at in tokens:
        token = ids[:, at : at + 1]
        expected = model(token, past_key_values=plain, output_retrieval=True).logits
        torch.testing.assert_close(
            model(token, past_key_values=fast).logits, expected, **EXACT, msg=f"token {at}"
        )


def captured():
    """Go on from `begun` to a captured token."""
    model, ids, fast, plain = begun()
    for at in range(33, 40):
        model(ids[:, at : at + 1], past_key_values=fast)
    model(ids[:, 33:40], past_key_values=plain)
    assert fast._fixed.token.captured is not None
    return model, ids, fast, plain


def test_replayed_tokens_equal_ordinary_calls(graphs):
    model, ids, fast, plain = begun()
    follow(model, ids, fast, plain, range(33, 70))
    assert graphs.replays > 30


@pytest.mark.parametrize("change", CHANGES)
def test_a_graph_is_dropped_when_the_model_has_changed(change, graphs):
    model, ids, fast, plain = captured()
    handle = CHANGES[change](model.model.lower_layers[0].mlp.down_proj)
    graphs.is_stale = True
    try:
        follow(model, ids, fast, plain, range(40, 43))
        assert fast._fixed.token.captured is None
    finally:
        if change == "hook for all":
            handle.remove()
    graphs.is_stale = False
    follow(model, ids, fast, plain, range(43, 47))


def test_a_graph_is_dropped_when_a_module_is_replaced(graphs):
    model, ids, fast, plain = captured()
    layer = model.model.lower_layers[0]
    layer.mlp = copy.deepcopy(layer.mlp)
    layer.mlp.down_proj.weight.mul_(2)
    graphs.is_stale = True
    follow(model, ids, fast, plain, range(40, 43))
    assert fast._fixed.token.captured is None


def test_a_moved_weight_is_seen_before_anything_is_replayed(graphs):
    model, ids, fast, plain = captured()
    replays = graphs.replays
    move_weight(model.model.lower_layers[0].mlp.down_proj)
    follow(model, ids, fast, plain, range(40, 41))
    assert graphs.replays == replays


def test_a_weight_that_is_written_in_place_is_replayed(graphs):
    model, ids, fast, plain = captured()
    replays = graphs.replays
    model.model.lower_layers[0].mlp.down_proj.weight.mul_(2)
    follow(model, ids, fast, plain, range(40, 50))
    assert graphs.replays == replays + 10
    assert fast._fixed.token.captured is not None


def test_a_failing_capture_changes_nothing(graphs, monkeypatch):
    def fail(compute, undo, work, graphs):
        with work.taken_by(lambda _: None):
            compute()
        raise RuntimeError("no memory")

    monkeypatch.setattr(captured_step, "record", fail)
    model, ids, fast, plain = begun()
    follow(model, ids, fast, plain, range(33, 48))
    assert fast._fixed.token.captured is None
