"""Two processes train the model that one would, and the model can be sharded with FSDP2."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from accelerate import FullyShardedDataParallelPlugin
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from gcattn.models import DRTForCausalLM, drt_tiny
from gcattn.storage.lock import sole_writer
from gcattn.train.run import run_training

from .runs import losses, weights

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def command(processes: int, *arguments: str) -> list[str]:
    launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    return [sys.executable, "-m", *(launcher if processes > 1 else []), "gcattn.cli", *arguments]


@pytest.mark.slow
def test_two_processes_equal_one_with_the_same_rows(make_config, config_file, tmp_path):
    """Same rows per step, no noise: losses, gradient norms and weights agree to rounding."""
    shared = ["model.retrieval_noise=none", "training.steps=3", "training.save_every=2"]
    one = make_config(*shared, "training.batch_size=4", f"output={tmp_path / 'one'}")
    two = make_config(*shared, f"output={tmp_path / 'two'}")
    run_training(one)
    arguments = ["train", str(config_file), *shared, f"output={two.output}"]
    subprocess.run(command(2, *arguments), env=ENVIRONMENT, check=True, timeout=120)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert losses(two, "validation")[3] == pytest.approx(losses(one, "validation")[3], rel=1e-5)
    expected, found = weights(one), weights(two)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)
    states = {path.name for path in (Path(two.output) / "checkpoint-2").glob("rng_state_*")}
    assert states == {"rng_state_0.pth", "rng_state_1.pth"}


@pytest.mark.slow
def test_sigterm_ends_the_command_with_143_and_says_how_to_go_on(config_file, make_config):
    config = make_config("training.steps=400", "training.eval_every=0")
    arguments = ["train", str(config_file), "training.steps=400", "training.eval_every=0"]
    process = subprocess.Popen(
        command(1, *arguments), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not losses(config) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    last = list(losses(config))[-1]
    assert f"SIGTERM: saved at step {last}; add --resume to continue." in errors
    assert "Traceback" not in errors
    assert 0 < last < 400


@pytest.mark.slow
def test_all_processes_end_when_the_folder_is_in_use(config_file, make_config):
    """Only the first one asks for the folder; the others must not wait for it for ever."""
    output = Path(make_config().output)
    with sole_writer(output):
        started = subprocess.run(
            command(2, "train", str(config_file), "--resume"),
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert started.returncode != 0
    assert f"gcattn: error: {output} is in use by process {os.getpid()} on " in started.stderr
    assert list(output.iterdir()) == []


def shard_and_step(rank: int, processes: int, store: str, results: Path) -> None:
    store = f"file://{store}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
    torch.manual_seed(0)
    model = DRTForCausalLM(drt_tiny(vocab_size=32, num_retrieval_groups=2, retrieval_noise="none"))
    mesh = init_device_mesh("cpu", (processes,))
    for module in model.modules():
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)
    ids = torch.randint(0, 31, (2, 64), generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            rows = ids[rank::processes]
            loss = model(rows, labels=rows).loss
            loss.backward()
            assert all(parameter.grad is not None for parameter in model.parameters())
            optimizer.step()
            optimizer.zero_grad()
    # such as of a module whose weights were read while it never ran forward
    assert not [str(warning.message) for warning in told if "FSDP" in str(warning.message)]
    full = {name: p.full_tensor() for name, p in model.named_parameters()}
    if rank == 0:
        torch.save(full, results)
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "changes",
    [{}, {"retrieval_method": "none", "num_recurrent_states": 4}, {"retrieval_method": "none"}],
)
def test_accelerate_finds_every_layer_that_it_shards_by(changes):
    """It raises where a name of `_no_split_modules` is in no module of the model."""
    model = DRTForCausalLM(drt_tiny(vocab_size=32, **changes))
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap"
    )
    plugin.set_auto_wrap_policy(model)
    wrapped = {type(module).__name__ for module in model.modules() if "Layer" in str(type(module))}
    assert wrapped >= set(model._no_split_modules) >= {"DecoderLayer"}


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_model_trains_under_fsdp2_as_it_does_alone(processes, tmp_path):
    arguments = processes, str(tmp_path / "store"), tmp_path / "full.pt"
    if processes == 1:
        shard_and_step(0, *arguments)
    else:
        mp.spawn(shard_and_step, arguments, nprocs=processes)
    torch.manual_seed(0)
    model = DRTForCausalLM(drt_tiny(vocab_size=32, num_retrieval_groups=2, retrieval_noise="none"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(0, 31, (2, 64), generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        model(ids, labels=ids).loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
    full = torch.load(tmp_path / "full.pt")
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(full[name], parameter.data, rtol=1e-3, atol=1e-4)
