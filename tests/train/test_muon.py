"""Muon updates the matrices of the layers, AdamW the rest; resuming repeats it bit for bit."""

import signal

import pytest
import torch
from torch import nn

from gcattn.models import DRTForCausalLM, drt_tiny
from gcattn.train.config import load_config
from gcattn.train.muon import BatchedMuon, MuonWithAdamW, split_parameters
from gcattn.train.run import run_training

from .runs import assert_same_run, losses, run_and_signal


def optimizer_of(model, lr=0.01):
    matrices, others, vectors = split_parameters(model)
    groups = [{"params": others, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return MuonWithAdamW(matrices, groups, lr=lr, betas=(0.9, 0.95), weight_decay=0.1, fused=False)


def test_every_parameter_has_one_optimizer_and_embeddings_are_not_muons():
    model = DRTForCausalLM(drt_tiny(vocab_size=64))
    matrices, others, vectors = split_parameters(model)
    parts = [id(p) for p in (*matrices, *others, *vectors)]
    assert sorted(parts) == sorted(id(p) for p in model.parameters())
    assert len(set(parts)) == len(parts)
    assert id(model.get_input_embeddings().weight) in {id(p) for p in others}
    assert id(model.model.convolution.weight) in {id(p) for p in others}
    assert id(model.model.lower_layers[0].mlp.down_proj.weight) in {id(p) for p in matrices}
    assert all(p.dim() == 2 for p in matrices)


def test_an_update_of_a_matrix_has_nearly_equal_singular_values():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(24, 24))
    u, _, v = torch.linalg.svd(torch.randn(24, 24))
    weight.grad = u @ torch.diag(torch.logspace(0, -1, 24)) @ v
    others = [{"params": [nn.Parameter(torch.ones(3))]}]
    optimizer = MuonWithAdamW(
        [weight], others, lr=1.0, betas=(0.9, 0.95), weight_decay=0.0, fused=False
    )
    optimizer.step()
    values = torch.linalg.svdvals(weight.detach())
    assert values[0] < 2 * values[-1]  # the gradient's differ by a factor of 10
    # the size of an update of AdamW
    assert 0.1 < weight.detach().pow(2).mean().sqrt() < 0.4


def test_matrices_of_one_shape_are_updated_together_as_pytorch_does_one_by_one():
    torch.manual_seed(0)
    shapes = [(24, 24), (16, 40), (40, 16), (16, 40), (24, 24)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    options = {"lr": 0.1, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    optimizers = BatchedMuon(ours, **options), torch.optim.Muon(theirs, **options)
    for _ in range(3):
        for p, q in zip(ours[:4], theirs[:4], strict=True):  # the last has no gradient
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=5e-3)  # bfloat16; an update is 0.02
    assert torch.equal(ours[4], theirs[4])


def test_schedulers_reach_both_and_states_return(tmp_path):
    torch.manual_seed(0)
    model = DRTForCausalLM(drt_tiny(vocab_size=64))
    optimizer = optimizer_of(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    ids = torch.randint(0, 60, (2, 40))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    other = optimizer_of(model)
    other.load_state_dict(torch.load(tmp_path / "optimizer.pt"))
    assert [group["lr"] for group in other.param_groups] == [0.0] * 3
    other.param_groups[0]["lr"] = 0.5
    assert other.muon.param_groups[0]["lr"] == 0.5


def test_a_run_with_muon_learns_and_resumes_bitwise(make_config, monkeypatch, tmp_path):
    options = ["training.optimizer=muon", "training.steps=12", "training.save_every=5"]
    whole = make_config(*options, f"output={tmp_path / 'whole'}")
    run_training(whole)
    curve = losses(whole)
    assert curve[12] < curve[1] - 0.3
    config = make_config(*options)
    assert run_and_signal(monkeypatch, config, signal.SIGINT, 7).step == 7
    run_training(config, resume=True)
    assert_same_run(config, whole)


def test_muon_with_sharded_weights_is_refused(config_file):
    with pytest.raises(ValueError, match="needs whole matrices"):
        load_config(config_file, ["training.optimizer=muon", "training.fsdp=true"])
