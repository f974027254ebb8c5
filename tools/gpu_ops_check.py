"""Check the operators on a GPU and time them: device, host and back-to-back wall time.

Run from the repository's root: python tools/gpu_ops_check.py
"""

import os
import statistics
import sys
import time
import traceback

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
sys.path.insert(0, os.environ.get("GCATTN_SRC", "src"))
import torch
import torch.nn.functional as F
import triton

from gcattn.ops import grouped_cross_attention, sliding_window_attention

BEGAN = time.time()
DEV = torch.device("cuda")
BF = torch.bfloat16
FAILED = []


def say(*words):
    print(f"[{time.time() - BEGAN:5.1f}s]", *words, flush=True)


def part(name, function):
    try:
        function()
    except Exception:
        FAILED.append(name)
        say(f"FAILED {name}")
        traceback.print_exc()


def rms(x):
    return x.double().square().mean().sqrt().item()


def within_budget(name, fast, plain, truth, labels):
    words = []
    for label, f, p, t in zip(labels, fast, plain, truth, strict=True):
        t = t.double()
        error, usual = rms(f.double() - t), rms(p.double() - t)
        budget = 2 * usual + torch.finfo(f.dtype).eps * rms(t)
        words.append(f"{label} {error / max(rms(t), 1e-30):.1e}/{usual / max(rms(t), 1e-30):.1e}")
        if not error <= budget:
            FAILED.append(f"{name} {label}")
            words[-1] += " RED"
    say(f"{name}: relative error ours/reference in bf16:", ", ".join(words))


def gca_case(name, B, C, M, H, G, D, N, S, K, sink, lengths, backward):
    g = torch.Generator().manual_seed(0)
    r = lambda *s: torch.randn(*s, generator=g).to(DEV)  # noqa: E731
    q, k, v = r(B, C, M, H, D).to(BF), r(B, N, S, G, D).to(BF), r(B, N, S, G, D).to(BF)
    indices = torch.randint(-1, N, (B, C, K), generator=g).to(DEV)
    weights = r(B, C, K).softmax(-1)
    weights[..., 0] = 0  # a weight of zero has a gradient
    slots = torch.randint(1, S + 1, (B, N), generator=g).to(DEV) if lengths else None
    dout = r(B, C, M, H, D).to(BF)
    for mixing in ("separate", "joint"):

        def run(dtype, impl, mixing=mixing):
            leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
            w = weights.to(torch.promote_types(dtype, torch.float32)).requires_grad_()
            with torch.set_grad_enabled(backward):
                out = grouped_cross_attention(
                    *leaves,
                    indices,
                    w,
                    chunk_lengths=slots,
                    sink_logit=sink,
                    mixing=mixing,
                    impl=impl,
                )
            if not backward:
                return [out]
            return [out.detach(), *torch.autograd.grad(out, (*leaves, w), dout.to(dtype))]

        torch.full((64 * 2**20,), torch.nan, device=DEV)  # what is not written shows
        fast, again = run(BF, "triton"), run(BF, "triton")
        if not all(torch.equal(a, b) for a, b in zip(fast, again, strict=True)):
            FAILED.append(f"{name} {mixing} two runs differ")
        labels = ("out", "dq", "dk", "dv", "dw")[: len(fast)]
        truth, plain = run(torch.float64, "reference"), run(BF, "reference")
        within_budget(f"{name} {mixing}", fast, plain, truth, labels)


def window_case(name, B, L, P, W, H, G, D, documents):
    g = torch.Generator().manual_seed(0)
    r = lambda *s: torch.randn(*s, generator=g).to(DEV).to(BF)  # noqa: E731
    q, k, v, dout = r(B, L, H, D), r(B, P + L, G, D), r(B, P + L, G, D), r(B, L, H, D)
    numbers = torch.randint(0, 3, (B, P + L), generator=g).sort(1).values.to(DEV)
    named = {"query_documents": numbers[:, P:], "key_documents": numbers} if documents else {}

    def run(dtype, impl):
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        out = sliding_window_attention(*leaves, window_size=W, impl=impl, **named)
        return [out.detach(), *torch.autograd.grad(out, leaves, dout.to(dtype))]

    torch.full((64 * 2**20,), torch.nan, device=DEV)
    fast = run(BF, "triton")
    within_budget(name, fast, run(BF, "reference"), run(torch.float64, "reference"),
                  ("out", "dq", "dk", "dv"))  # fmt: skip


def compiled_equals_eager():
    q, k, v = (torch.randn(1, 4, 64, 12, 64, device=DEV, dtype=BF) for _ in range(3))
    indices = torch.tensor([[[-1, -1], [0, -1], [0, 1], [2, 1]]], device=DEV)
    weights = torch.rand(1, 4, 2, device=DEV)

    def loss(q, k, v, w):
        out = grouped_cross_attention(q, k, v, indices, w, mixing="joint")
        x = out.flatten(1, 2)
        return sliding_window_attention(x, x, x, window_size=64).float().square().sum()

    results = []
    for function in (loss, torch.compile(loss, fullgraph=True)):
        leaves = [x.clone().requires_grad_() for x in (q, k, v, weights)]
        results.append(torch.autograd.grad(function(*leaves), leaves))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)
    say("torch.compile(fullgraph=True): same gradients")


def times(call):
    """Device ms (queue kept busy), host ms (to launch, from idle), wall ms (back to back)."""
    for _ in range(5):
        call()
    torch.cuda.synchronize()
    host = []
    for _ in range(30):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        host.append((time.perf_counter() - began) * 1e3)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(50):
        call()
    torch.cuda.synchronize()
    wall = (time.perf_counter() - began) / 50 * 1e3
    buffer = torch.empty(256 * 2**20, dtype=torch.int8, device=DEV)
    starts, ends = ([torch.cuda.Event(enable_timing=True) for _ in range(20)] for _ in range(2))
    for start, end in zip(starts, ends, strict=True):
        for _ in range(12):  # the host gets ahead, and the L2 cache is cold
            buffer.zero_()
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    device = statistics.median(s.elapsed_time(e) for s, e in zip(starts, ends, strict=True))
    return device, statistics.median(host), min(host), wall


def timing(L):
    H, D, K, S = 12, 64, 8, 64
    C = L // S
    leaf = lambda *s: torch.randn(*s, device=DEV, dtype=BF).requires_grad_()  # noqa: E731
    q, k, v = leaf(1, C, S, H, D), leaf(1, C, S, H, D), leaf(1, C, S, H, D)
    drawn = torch.rand(C, C).tril(-1).topk(min(K, C), -1)
    indices = torch.where(drawn.values > 0, drawn.indices, -1)[None].to(DEV)
    weights = torch.rand(1, C, K, device=DEV).softmax(-1).requires_grad_()
    x, y, z = leaf(1, L, H, D), leaf(1, L, H, D), leaf(1, L, H, D)
    a, b, c = leaf(1, H, L, D), leaf(1, H, L, D), leaf(1, H, L, D)
    calls = {
        "gca separate": (
            lambda: grouped_cross_attention(q, k, v, indices, weights),
            (q, k, v, weights),
        ),
        "gca joint": (
            lambda: grouped_cross_attention(q, k, v, indices, weights, mixing="joint"),
            (q, k, v, weights),
        ),
        "window 512": (lambda: sliding_window_attention(x, y, z, window_size=512), (x, y, z)),
        "SDPA causal": (lambda: F.scaled_dot_product_attention(a, b, c, is_causal=True), (a, b, c)),
    }
    for name, (call, leaves) in calls.items():
        with torch.no_grad():
            dout = torch.randn_like(call())

        def forward(call=call):
            with torch.no_grad():
                return call()

        def both(call=call, leaves=leaves, dout=dout):
            return torch.autograd.grad(call(), leaves, dout)

        row = []
        for function in (forward, both):
            row.append("{:.3f} {:.3f} ({:.3f}) {:.3f}".format(*times(function)))
        say(f"L {L:6d} {name:13s} forward: {row[0]} | forward+backward: {row[1]}")


say(torch.cuda.get_device_name(), "torch", torch.__version__, "triton", triton.__version__)
part(
    "gca full",
    lambda: gca_case("B1 C9 H12 D64 S64 K8", 1, 9, 64, 12, 12, 64, 9, 64, 8, None, False, True),
)
part(
    "gca ragged",
    lambda: gca_case(
        "B2 C5 H8 G2 D80 S40 K3 ragged sink", 2, 5, 40, 8, 2, 80, 7, 40, 3, 1.0, True, True
    ),
)
part(
    "gca decode",
    lambda: gca_case(
        "decode M1 H12 D64 S64 K8", 1, 1, 1, 12, 12, 64, 40, 64, 8, None, False, False
    ),
)
part("window", lambda: window_case("window 512 L1500", 1, 1500, 0, 512, 12, 12, 64, False))
part(
    "window packed",
    lambda: window_case("window 300 packed G2 D80 P100", 2, 700, 100, 300, 6, 2, 80, True),
)
say("columns: device ms, host ms median (min), back-to-back wall ms")
for length in (1024, 4096, 16384):
    part(f"timing {length}", lambda length=length: timing(length))
part("compile", compiled_equals_eager)
say("FAILED: " + "; ".join(FAILED) if FAILED else "all green")
sys.exit(1 if FAILED else 0)
