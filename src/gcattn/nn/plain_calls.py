"""Whether a call of a module runs its class's `forward` and nothing else."""

from torch import nn

# PyTorch has no public name for it
from torch.nn.modules.module import _has_any_global_hook as has_hooks_for_all_modules


def is_called_plainly(module: nn.Module) -> bool:
    """Say whether the module has no hooks and no `forward` of its own."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or "forward" in vars(module)
        or has_hooks_for_all_modules()
    )
