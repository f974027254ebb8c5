"""On a CPU a token's operators are recorded once and repeated without the modules around them."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gcattn import DRTCache
from gcattn.models import modeling_drt, token_step
from gcattn.models.captured_step import CapturedStep
from gcattn.models.recorded_calls import RecordedCalls
from gcattn.testing import never_pads, random_config, random_model, random_tokens

SAMPLING = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "top_k": 5, "temperature": 1.3},
}


def recorded(*functions):
    """Record some functions, one after the other; returns what replays all, and their results."""
    graphs = RecordedCalls()
    with graphs.beside():
        parts, results = [], []
        for function in functions:
            graphs.begin()
            try:
                results.append(function())
            finally:
                parts.append(graphs.end())
    return lambda: [part() for part in parts], results


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_replay_computes_anew_from_what_lies_in_the_same_places(mode):
    x, weight, at = torch.randn(2, 6), torch.randn(4, 6), torch.tensor([1])
    table = torch.zeros(3, 4)

    def compute():
        y = torch.nn.functional.linear(x, weight).view(2, 2, 2).transpose(1, 2)
        y = torch.cat([-y, y.float().pow(2)], dim=-1) + torch.arange(4)
        table[at] = y.flatten(1)[:1, :4]
        table[:, at] += 1
        picked = table[at] * torch.full((4,), 3.0)
        return torch.where(picked > 0, picked, 0).softmax(-1), y.bfloat16().mean(-1)

    replay, [found] = recorded(compute)
    for seed in range(3):
        torch.manual_seed(seed)
        with mode():
            x.copy_(torch.randn(2, 6))
            weight.normal_()
            at.fill_(seed)
            replay()
            held = [y.clone() for y in found]
            for y, expected in zip(held, compute(), strict=True):
                assert torch.equal(y, expected)


def test_constants_are_made_once_unless_something_is_written_into_them():
    total = []

    def count():
        total.append(torch.zeros(2))
        return torch.arange(5) * 2 - 1

    def add():
        return total[0].add_(torch.ones(2))

    replay, [numbers, sums] = recorded(count, add)
    numbers.fill_(7)
    for _ in range(3):
        replay()
    assert numbers.tolist() == [7] * 5
    assert sums.tolist() == [1, 1]


class Wrapped(torch.Tensor):
    """A weight of another kind."""


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x + torch.tensor(3.0),
        lambda x: torch.equal(x, x),
        lambda x: torch.rand_like(x),
        lambda x: x + x.as_subclass(Wrapped),
    ],
    ids=["number", "places", "mask", "constant of the host", "comparison", "chance", "subclass"],
)
def test_what_another_run_may_decide_otherwise_is_refused(ask):
    with pytest.raises(RuntimeError, match="can't be repeated"):
        recorded(lambda: ask(torch.ones(3)))


class CountOperators(TorchDispatchMode):
    """Counts the operators of a CPU that run."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))


def test_a_replayed_token_runs_a_bounded_number_of_operators():
    config = random_config(
        5, chunk_size=33, num_lower_layers=2, num_upper_layers=2, num_retrieval_groups=1
    )
    model = random_model(config).float()
    ids = random_tokens(config, 1, 60)
    cache = DRTCache(config)
    with torch.no_grad():
        model(ids[:, :40], past_key_values=cache)
        for at in range(40, 50):
            model(ids[:, at : at + 1], past_key_values=cache)
        with CountOperators() as operators:
            model(ids[:, 50:51], past_key_values=cache)
    assert operators.number < 300


@pytest.fixture
def replays(monkeypatch):
    """Count the columns that are replayed."""
    seen, original = [], CapturedStep.replay

    def replay(self, model):
        seen.append(None)
        return original(self, model)

    monkeypatch.setattr(CapturedStep, "replay", replay)
    return seen


@pytest.mark.parametrize("sampling", SAMPLING)
def test_generate_replays_and_gives_the_tokens_of_planned_calls(sampling, replays, monkeypatch):
    # rows are at different phases; the second turn goes on with the same cache
    monkeypatch.setattr(token_step, "LANDMARKS_UNTIL_RECORDING", 2)
    model = never_pads(random_model(random_config(8, chunk_size=9)))
    ids, more = random_tokens(model.config, 3, 40), random_tokens(model.config, 3, 5, seed=1)
    mask = torch.ones_like(ids)
    mask[1, :4], mask[2, :7] = 0, 0

    def generate():
        torch.manual_seed(0)
        cache = DRTCache(model.config)
        options = {"max_new_tokens": 30, "pad_token_id": 60, "cache": cache} | SAMPLING[sampling]
        first = model.generate(ids, attention_mask=mask, **options)
        read = torch.cat([mask, mask.new_ones(3, first.shape[1] - 40 + 5)], dim=1)
        return model.generate(torch.cat([first, more], 1), attention_mask=read, **options)

    found = generate()
    assert len(replays) > 2 * 20
    monkeypatch.setattr(modeling_drt, "decode_token", lambda *_: None)
    assert torch.equal(found, generate())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_kept_wide_while_tokens_are_decoded_and_handed_back_unchanged(dtype):
    model = random_model(random_config(5, chunk_size=33, window_size=13)).to(dtype)
    ids = random_tokens(model.config, 2, 60)
    fast, plain = DRTCache(model.config), DRTCache(model.config)
    with torch.no_grad():
        for cache in (fast, plain):
            model(ids[:, :40], past_key_values=cache)
        before = fast.lower_window.tensors()["keys.0"].clone()
        for at in range(40, 50):
            token = ids[:, at : at + 1]
            found = model(token, past_key_values=fast).logits
            expected = model(token, past_key_values=plain, output_retrieval=True).logits
            torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    after = fast.states()["lower"].tensors()["keys.0"]
    assert after.dtype == dtype
    assert torch.equal(after[:, :2], before[:, 10:])
