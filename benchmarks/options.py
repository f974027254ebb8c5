"""Options that the benchmarks share, and what is read from them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.contestant import Contestant
from benchmarks.contestants import contestants
from gcattn.cli.limits import countable, seedable
from gcattn.cli.paths import expand
from gcattn.evals.device import choose_device
from gcattn.evals.lengths import parse_lengths
from gcattn.models import PRESETS, DRTConfig
from gcattn.storage.writable import check_writable

# a GPU that runs out of memory says so, and that is a result; so much more is a slip
_GPU_EXCESS = 16

Lengths = Annotated[
    str | None,
    typer.Option(
        "--lengths", "--length", help="Lengths in tokens, such as 1k,64k,1m (default: by device)."
    ),
]
Presets = Annotated[
    str | None,
    typer.Option(help="Presets to measure, such as drt_34m,drt_128m (default: by device)."),
]
Batch = Annotated[int, typer.Option(min=1, callback=countable, help="Rows in a batch.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: the GPU if there is one.")]
FullAttention = Annotated[
    bool | None,
    typer.Option(help="Also measure a full-attention Transformer (default: on a GPU)."),
]
Seed = Annotated[int, typer.Option(min=0, callback=seedable, help="Seed of weights and data.")]
Out = Annotated[Path, typer.Option(callback=expand, help="Folder of the result and its pictures.")]


def begin(name: str, out: Path) -> torch.device:
    """Return the device, after checking what would otherwise fail when all is measured."""
    check_writable(out)
    device = choose_device(name)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"Benchmarks run on cpu or cuda, got --device {name}.")
    return device


def read_lengths(given: str | None, on_gpu: str, on_cpu: str, has_gpu: bool) -> list[int]:
    """Return the given lengths, or those that suit the device."""
    return parse_lengths(given or (on_gpu if has_gpu else on_cpu))


def read_length(option: str, text: str) -> int:
    """Return one length; raise ValueError if there are several."""
    numbers = parse_lengths(text)
    if len(numbers) != 1:
        raise ValueError(f"{option} must be one number such as 16k, got {text!r}.")
    return numbers[0]


def read_counts(option: str, text: str) -> list[int]:
    """Return numbers of at least 1, separated by commas."""
    numbers = [number.strip() for number in text.split(",")]
    if any(not re.fullmatch("0*[1-9][0-9]{0,8}", number) for number in numbers):
        raise ValueError(f"{option} must be numbers from 1 such as 1,2,6, got {text!r}.")
    return [int(number) for number in dict.fromkeys(numbers)]


def read_presets(given: str | None, default: str) -> dict[str, DRTConfig]:
    """Return the configurations of presets by name; raise ValueError for an unknown one."""
    names = [name.strip() for name in (given or default).split(",")]
    if unknown := [name for name in names if name not in PRESETS]:
        raise ValueError(f"--preset must be of {', '.join(PRESETS)}, got {', '.join(unknown)}.")
    return {name: PRESETS[name]() for name in names}


def check_room(device: torch.device, num_bytes: float, what: str) -> None:
    """Refuse a measurement that no part of this machine could hold, before it is begun.

    Args:
        device: Where the measurement runs.
        num_bytes: What it needs at the very least.
        what: The name of what needs them, for the error.

    Raises:
        ValueError: The device is too small by far, or the machine at all.
    """
    if device.type == "cuda":
        room = _GPU_EXCESS * torch.cuda.mem_get_info(device)[1]
    else:
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if num_bytes > room:
        raise ValueError(
            f"{what} takes at least {num_bytes / 2**30:,.0f} GiB, far more than this machine has; "
            "choose smaller sizes."
        )


def check_memory(device: torch.device, configs: dict[str, DRTConfig], num_tokens: int) -> None:
    """Refuse more tokens than the machine could hold in the chunk memory of any of the presets.

    Raises:
        ValueError: It could not, by far.
    """
    for name, config in configs.items():
        per_token = sum(config.memory_bytes_per_token().values())
        check_room(device, num_tokens * per_token, f"{name} at {num_tokens:,} tokens")


def read_contestants(only: str | None) -> list[Contestant]:
    """Return all contestants or the named ones; raise ValueError for an unknown name."""
    everyone = contestants()
    known = [contestant.name for contestant in everyone]
    wanted = known if only is None else [name.strip() for name in only.split(",")]
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"--only knows {', '.join(known)}; got {', '.join(unknown)}.")
    return [contestant for contestant in everyone if contestant.name in wanted]
