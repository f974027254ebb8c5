"""Decoded tokens on a GPU: captured graph against planned calls, and what a token takes.

Run from the repository's root: python tools/gpu_decode_check.py
"""

import copy
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path.cwd() / "src"))

import torch

import gcattn.models.modeling_drt as modeling
import gcattn.models.token_step as token_step
from benchmarks.decode import bench_decoding
from gcattn import DRTCache
from gcattn.models import DRTForCausalLM, drt_128m
from gcattn.testing import random_config, random_model, random_tokens

BEGAN = time.time()
PLANNED = lambda *args: None  # noqa: E731
FAST = token_step.decode_token
token_step.CAPTURES_GRAPHS = True


def say(*words):
    print(f"[{time.time() - BEGAN:6.1f} s]", *words, flush=True)


def equality():
    torch.set_grad_enabled(False)
    worst, captured = 0.0, 0
    for seed in range(6):
        for tier in ("device", "host"):
            config = random_config(seed, chunk_size=33)
            # kernels need a head size that tiles
            config.head_dim = 16
            model = random_model(config).to("cuda", torch.float32)
            ids = random_tokens(config, 3, 150, seed).cuda()
            mask = torch.ones_like(ids)
            mask[1, :29], mask[2, :37] = 0, 0
            mask[1, 60:75] = 0
            fast, plain = DRTCache(config, tier), DRTCache(config, tier)
            for cache in (fast, plain):
                model(ids[:, :40], attention_mask=mask[:, :40], past_key_values=cache)
            for at in range(40, 150):
                here = None if bool(mask[:, at].all()) else mask[:, at : at + 1]
                token = ids[:, at : at + 1]
                found = model(token, attention_mask=here, past_key_values=fast).logits
                expected = model(
                    token, attention_mask=here, past_key_values=plain, output_retrieval=True
                ).logits
                read = mask[:, at].bool()
                worst = max(worst, (found - expected)[read].abs().max().item())
                if at == 120:
                    fast = copy.deepcopy(fast)
            captured += fast._fixed is not None and fast._fixed.captured is not None
        say(f"seed {seed}: largest difference of a logit so far {worst:.2e}, captured {captured}")
    assert worst < 1e-3, worst
    config = random_config(3, chunk_size=33, head_dim=16)
    model = random_model(config).to("cuda", torch.float32)
    ids = random_tokens(config, 2, 40).cuda()
    sequences = []
    for function in (FAST, PLANNED):
        modeling.decode_token = function
        sequences.append(model.generate(ids, max_new_tokens=150, do_sample=False, pad_token_id=60))
    modeling.decode_token = FAST
    say("generate() gives the same tokens:", torch.equal(*sequences))
    # a hook that comes after the capture is run
    cache = DRTCache(config)
    model(ids, past_key_values=cache)
    for at in range(20):
        model(ids[:, at : at + 1], past_key_values=cache)
    calls = []
    hook = model.model.norm.register_forward_hook(lambda *a: calls.append(None))
    model(ids[:, :1], past_key_values=cache)
    hook.remove()
    say("a hook that came later is run:", len(calls) == 1)


def times():
    config = drt_128m()
    lengths = [1024, 65536, 1048576]
    rows = {}
    for name, function, before in (
        ("graph", FAST, 4),
        ("fixed shapes, eager", FAST, -1),
        ("planned", PLANNED, 4),
    ):
        modeling.decode_token, token_step.COMPUTED_BEFORE_CAPTURE = function, before
        tiers = ("device", "host") if name == "graph" else ("device",)
        result = bench_decoding(
            config,
            lengths if name == "graph" else lengths[:1],
            torch.device("cuda"),
            torch.bfloat16,
            tiers=tiers,
            num_tokens=126,
        )
        for tier, by_length in result.items():
            for length, row in by_length.items():
                rows[name, tier, length] = row
                if "unavailable" in row:
                    say(name, tier, length, row)
                    continue
                say(
                    f"{name:20s} {tier:24s} {int(length):>9,d}: median {row['median_ms']:.3f} ms, "
                    f"p90 {row['p90_ms']:.3f}, closing {row['closing_median_ms']:.2f}"
                )
    modeling.decode_token, token_step.COMPUTED_BEFORE_CAPTURE = FAST, 4
    if time.time() - BEGAN < 85:
        row = bench_decoding(
            config,
            [65536],
            torch.device("cuda"),
            torch.bfloat16,
            tiers=("device",),
            batch=32,
            num_tokens=126,
        )["gcattn, device memory"]["65536"]
        say(
            "batch 32 at 65,536:",
            {k: row.get(k) for k in ("median_ms", "tokens_per_second")},
            row.get("unavailable", ""),
        )
    model = DRTForCausalLM(config).eval().to("cuda", torch.bfloat16)
    ids = torch.randint(0, 1000, (1, 1024), device="cuda")
    for _ in range(2):
        torch.cuda.synchronize()
        stamps = []

        def stamp(ids, scores, stamps=stamps):
            stamps.append(time.perf_counter())
            return scores

        model.generate(
            ids,
            max_new_tokens=160,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
            logits_processor=[stamp],
        )
    gaps = [(b - a) * 1e3 for a, b in pairwise(stamps[20:])]
    say(
        f"through generate(): median {statistics.median(gaps):.3f} ms, "
        f"mean {statistics.mean(gaps):.3f}"
    )


print(torch.cuda.get_device_name(), torch.__version__)
equality()
times()
say("done")
