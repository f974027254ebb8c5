"""Time to the first step and tokens/s of drt_128m at 16,380 tokens a row, by way of compilation.

python tools/gpu_compile_check.py [--tokens 16380] [--batch 1]   (under 200 s on one H100)

Prints a table: not compiled, whole model, by layer, by layer with changing shapes. Each way runs in
a subprocess with a timeout of its own, so that one that hangs costs no other its turn. The whole
model needs longer than its share: --ways "whole model" --scale 5 measures it alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = {  # seconds allowed
    "not compiled": 45,
    "by layer": 60,
    "by layer, dynamic": 45,
    "whole model": 45,
}


def measure(way: str, tokens: int, batch: int, preset: str, device: str) -> None:
    begin = time.perf_counter()
    for source in (Path.cwd() / "src", Path(__file__).resolve().parents[1] / "src"):
        if (source / "gcattn").is_dir():
            sys.path.insert(0, str(source))
            break
    import torch

    from gcattn.models import PRESETS, DRTForCausalLM
    from gcattn.train.compilation import compile_layers

    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    gpu = device == "cuda"
    sync = torch.cuda.synchronize if gpu else (lambda: None)
    model = DRTForCausalLM(PRESETS[preset](vocab_size=16_384)).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=gpu)
    ids = torch.randint(0, 16_000, (batch, tokens), device=device)
    call = model
    if way.startswith("by layer"):
        compile_layers(model, **({"dynamic": True} if "dynamic" in way else {}))
    elif way == "whole model":
        call = torch.compile(model)

    def forward() -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=gpu):
            return call(input_ids=ids, labels=ids, use_cache=False, return_logits=False).loss

    def step() -> float:
        loss = forward()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    sync()
    ready = time.perf_counter()
    loss = float(step())
    sync()
    first = time.perf_counter() - ready
    second_begin = time.perf_counter()
    step()
    sync()
    second = time.perf_counter() - second_begin
    for _ in range(4):
        step()
    sync()
    times = []
    limit = time.perf_counter() + 6
    while len(times) < 30 and time.perf_counter() < limit:
        start = time.perf_counter()
        step()
        sync()
        times.append(time.perf_counter() - start)
    times.sort()
    median = times[len(times) // 2]

    # evaluation: grad mode on, eval(), as the trainer runs it; then no_grad, for comparison
    from torch._dynamo.utils import counters

    def unique_graphs() -> int:
        return counters["stats"]["unique_graphs"]

    graphs = unique_graphs()
    model.eval()
    start = time.perf_counter()
    float(forward().detach())
    evaluation, after = time.perf_counter() - start, unique_graphs()
    breaks = sum(counters["graph_break"].values())
    peak = torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0
    print(
        json.dumps(
            {
                "way": way,
                "setup_s": round(ready - begin, 1),
                "first_step_s": round(first, 2),
                "second_step_s": round(second, 3),
                "step_ms": round(median * 1e3, 2),
                "tokens_per_s": round(batch * tokens / median),
                "loss": round(loss, 4),
                "graphs": graphs,
                "graphs_after_eval": after,
                "first_eval_s": round(evaluation, 3),
                "graph_breaks": breaks,
                "peak_GiB": round(peak, 2),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=16_380)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--preset", default="drt_128m")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="of the time limits")
    parser.add_argument("--ways", default=",".join(WAYS).replace("layer, d", "layer; d"))
    parser.add_argument("--one")
    options = parser.parse_args()
    if options.one:
        measure(options.one, options.tokens, options.batch, options.preset, options.device)
        return
    rows = []
    for way in (name.replace(";", ",") for name in options.ways.split(",")):
        command = [sys.executable, __file__, "--one", way, "--tokens", str(options.tokens)]
        command += ["--batch", str(options.batch), "--preset", options.preset]
        command += ["--device", options.device]
        limit = WAYS[way] * options.scale
        try:
            with tempfile.TemporaryDirectory() as cache:
                # compiled from nothing, every way; the kernels of the operators stay cached
                environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=limit, env=environment
                )
        except subprocess.TimeoutExpired as error:
            tail = (error.stderr or b"").decode(errors="replace").strip().splitlines()[-1:]
            print(f"{way}: no result within {limit:.0f} s {tail}", flush=True)
            continue
        if done.returncode:
            print(f"{way}: failed\n" + "\n".join(done.stderr.splitlines()[-12:]), flush=True)
            continue
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    if rows:
        names = list(rows[0])
        widths = [max(len(n), *(len(str(r[n])) for r in rows)) for n in names]
        print("  ".join(n.rjust(w) for n, w in zip(names, widths, strict=True)))
        for row in rows:
            print("  ".join(str(row[n]).rjust(w) for n, w in zip(names, widths, strict=True)))


if __name__ == "__main__":
    main()
