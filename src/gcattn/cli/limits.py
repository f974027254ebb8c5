"""Numbers on the command line that can't be meant."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# of whatever is counted: far beyond any memory, and safe in all arithmetic
MOST = 2**40
# a GPU that runs out of memory says so, and that is a result; so much more is a slip
_GPU_EXCESS = 16


def check_room(device: torch.device, num_bytes: float, what: str) -> None:
    """Refuse a measurement that no part of this machine could hold, before it is begun.

    Args:
        device: Where the measurement runs.
        num_bytes: What it needs at the very least.
        what: The name of what needs them, for the error.

    Raises:
        ValueError: The device is too small by far, or the machine at all.
    """
    import torch

    if device.type == "cuda":
        room = _GPU_EXCESS * torch.cuda.mem_get_info(device)[1]
    else:
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if num_bytes > room:
        raise ValueError(
            f"{what} takes at least {num_bytes / 2**30:,.0f} GiB, far more than this machine has; "
            "choose smaller sizes."
        )
