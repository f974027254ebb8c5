"""The device of an evaluation or a benchmark."""

import torch


def choose_device(name: str) -> torch.device:
    """Return a device that can compute here.

    Args:
        name: A torch device, or "auto" for the GPU if there is one.

    Raises:
        ValueError: There is no such device in this machine.
    """
    has_gpu = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_gpu else "cpu")
    try:
        target = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is not a device; expected auto, cpu or cuda.") from error
    if target.type == "cuda" and not has_gpu:
        raise ValueError(f"There is no GPU for device {name!r}; use cpu.")
    try:
        # "meta" holds no numbers, and torch knows names of devices that are not there
        torch.zeros(1, device=target).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"Device {name!r} can't compute here; use auto, cpu or cuda.") from error
    return target
