"""Whether calling a module is running its class's `forward`, and nothing else."""

from torch import nn

# the only place that says whether hooks for all modules exist
from torch.nn.modules.module import _has_any_global_hook


def is_called_plainly(module: nn.Module) -> bool:
    """Say whether there is neither a hook nor a `forward` of the module's own."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or "forward" in vars(module)
        or _has_any_global_hook()
    )
