"""What the device reaches at best: a large copy and a large matrix product, measured."""

from functools import partial

import torch

from benchmarks.costs import Ceilings
from benchmarks.timing import release_memory, time_call


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Measure bytes per second of a copy and operations per second of a product in `dtype`."""
    on_gpu = device.type == "cuda"
    num_bytes, size = (2**30, 8192) if on_gpu else (2**26, 512)
    source = torch.zeros(num_bytes, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    copy_ms = time_call(partial(target.copy_, source), device).median_ms
    del source, target
    # values matter: a product of zeros draws less power and runs at a higher clock
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product_ms = time_call(partial(torch.mm, a, b), device).median_ms
    del a, b
    release_memory(device)
    return Ceilings(2e3 * num_bytes / copy_ms, 2e3 * size**3 / product_ms)
