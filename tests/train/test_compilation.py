"""Compiled by layer: one graph for each kind, the same numbers, whatever is wrapped around it."""

import gc
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch._dynamo.backends.debugging import aot_eager
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from gcattn.models import DRTForCausalLM, drt_tiny, plan_ahead
from gcattn.nn.retriever import Retrieval
from gcattn.train import run
from gcattn.train.compilation import compile_layers
from gcattn.train.run import run_training
from gcattn.train.trainer import DRTTrainer

from .runs import losses

# lower and upper layers without retrieval, layers with it, layers of the encoder, the loss
KINDS = 4


class CountingBackend:
    """Run graphs without generating code, and count them."""

    def __init__(self):
        self.num_graphs = 0

    def __call__(self, graph, inputs):
        self.num_graphs += 1
        return aot_eager(graph, inputs)


@pytest.fixture
def backend():
    torch._dynamo.reset()
    yield CountingBackend()
    torch._dynamo.reset()


def tiny_model(**changes):
    torch.manual_seed(0)
    sizes = {"num_lower_layers": 3, "num_upper_layers": 4, "num_retrieval_groups": 2}
    kinds = {"cross_attention_interval": 2, "retrieval_noise": "none", "vocab_size": 32}
    return DRTForCausalLM(drt_tiny(**sizes | kinds | changes)).train()


def loss_of(model, B=2, T=64):
    ids = torch.randint(0, 30, (B, T), generator=torch.Generator().manual_seed(B * T))
    return model(ids, labels=ids, use_cache=False, return_logits=False).loss


def gradients(model):
    model.zero_grad()
    loss_of(model).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.slow
def test_a_kind_of_layer_has_one_graph_however_many_layers_there_are(backend):
    model = tiny_model()
    expected = gradients(model)
    compile_layers(model, backend=backend)
    found = gradients(model)
    assert backend.num_graphs == KINDS
    assert {name: tuple(g.shape) for name, g in found.items()} == {
        name: tuple(g.shape) for name, g in expected.items()
    }
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)
    loss_of(model.eval()).detach()
    assert backend.num_graphs == KINDS


@pytest.mark.slow
def test_changing_shapes_take_a_few_graphs_of_each_kind(backend):
    model = tiny_model()
    compile_layers(model, backend=backend)
    for B, T in ((2, 64), (4, 64), (3, 96), (5, 80), (2, 64)):
        loss_of(model, B, T).backward()
    # one graph for changing rows, one for changing lengths, one for both; the loss has one for each
    # of the four numbers of tokens, in whose slices it is a loop
    assert backend.num_graphs <= 4 * (KINDS - 1) + 4


def train_on(model, breaks, begins=(), T=96):
    """Train on two rows, the second with chunks that close early and documents that begin there."""
    ids = torch.randint(0, 30, (2, T), generator=torch.Generator().manual_seed(0))
    closes, documents = torch.zeros(2, T, dtype=torch.bool), torch.zeros(2, T).long()
    closes[1, breaks] = True
    for begin in begins:
        documents[1, begin:] += 1
    plan = plan_ahead(model.config, (2, T), chunk_breaks=closes, document_ids=documents)
    retrieval = Retrieval(model.config.retrieval_top_k, across_documents=True)
    given = {"labels": ids, "document_ids": documents, "plan": plan, "retrieval": retrieval}
    model(ids, use_cache=False, return_logits=False, **given).loss.backward()


@pytest.mark.slow
def test_rows_of_several_documents_take_no_graph_of_their_own(backend):
    model = tiny_model(num_lower_layers=1, num_upper_layers=2, cross_attention_interval=1)
    compile_layers(model, backend=backend)
    for breaks in ([20], [20, 50, 60, 70], [5, 6, 7, 8]):
        train_on(model, breaks)
    num_graphs = backend.num_graphs
    train_on(model, [20], [9, 70])
    train_on(model, [], [9, 70, 90])
    assert backend.num_graphs == num_graphs


@pytest.mark.slow
def test_rows_whose_chunks_close_early_are_compiled_once(backend, make_config, monkeypatch):
    model = tiny_model(num_lower_layers=1, num_upper_layers=2, cross_attention_interval=1)
    compile_layers(model, backend=backend, dynamic=True)
    train_on(model, [20, 41])
    num_graphs = backend.num_graphs
    for breaks, begins in (([20, 50, 60, 70], []), ([5, 6, 7, 8, 9], [9, 70])):
        train_on(model, breaks, begins)
    assert backend.num_graphs == num_graphs

    options = []
    monkeypatch.setattr(run, "compile_layers", lambda model, **given: options.append(given))
    irregular = make_config("training.compile=true", "data.close_chunks_early=0.1")
    run_training(irregular)
    run_training(make_config("training.compile=true", f"output={irregular.output}-regular"))
    assert options == [{"dynamic": True}, {"dynamic": None}]


@pytest.mark.slow
def test_gradient_checkpointing_stays_outside_of_the_graphs(backend):
    model = tiny_model()
    expected = gradients(model)
    run._enable_checkpointing(model)
    compile_layers(model, backend=backend)
    found = gradients(model)
    assert backend.num_graphs == KINDS
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


@pytest.mark.slow
def test_compiled_training_evaluates_without_another_graph(make_config, monkeypatch, backend):
    monkeypatch.setattr(run, "compile_layers", partial(compile_layers, backend=backend))
    counts = []
    original = DRTTrainer.evaluate

    def evaluate(self, *args, **kwargs):
        counts.append(backend.num_graphs)
        metrics = original(self, *args, **kwargs)
        counts.append(backend.num_graphs)
        return metrics

    monkeypatch.setattr(DRTTrainer, "evaluate", evaluate)
    compiled = make_config("training.compile=true")
    run_training(compiled)
    assert counts[0] > 0 and len(set(counts)) == 1
    plain = make_config(f"output={compiled.output}-plain")
    run_training(plain)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)
    assert losses(compiled, "validation") == pytest.approx(losses(plain, "validation"), rel=1e-4)


def step_wrapped(rank: int, store: str, results: Path, wrapper: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model = tiny_model()
    run._enable_checkpointing(model)
    backend = CountingBackend()
    compile_layers(model, backend=backend)
    trained = model
    if wrapper == "ddp":
        trained = DistributedDataParallel(model)
    else:
        mesh = init_device_mesh("cpu", (2,))
        for module in model.modules():
            if type(module).__name__ in model._no_split_modules:
                fully_shard(module, mesh=mesh)
        # accelerate shards these apart, so that calling the head runs hooks
        tail = [model.model.norm, model.model.embed_tokens, model.lm_head]
        fully_shard(tail, mesh=mesh, reshard_after_forward=False)
        fully_shard(model, mesh=mesh)
    ids = torch.randint(0, 30, (2, 64), generator=torch.Generator().manual_seed(128))
    rows = ids[rank : rank + 1]
    trained(rows, labels=rows, use_cache=False, return_logits=False).loss.backward()
    found = {
        name: p.grad.full_tensor() if wrapper == "fsdp2" else p.grad
        for name, p in model.named_parameters()
    }
    if rank == 0:
        torch.save((found, backend.num_graphs), results)
    # a reducer that owns the group last may wait for a thread that waits for the interpreter
    del trained, found
    gc.collect()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp2"])
def test_compiled_layers_train_on_two_devices_as_on_one(tmp_path, wrapper):
    mp.spawn(step_wrapped, (str(tmp_path / "store"), tmp_path / "result.pt", wrapper), nprocs=2)
    found, num_graphs = torch.load(tmp_path / "result.pt")
    assert num_graphs == KINDS
    for name, gradient in gradients(tiny_model()).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)
