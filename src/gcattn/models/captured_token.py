"""The computation of a token as a CUDA graph: one launch instead of some hundred.

A graph replays the kernels of one run on the same tensors, and nothing else of it: no hook, no
branch of a wrapped module. So it is made only for modules that are known to have neither, and
looked over before every token.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

# packages whose modules compute the same for every token
KNOWN_PACKAGES = ("gcattn.", "torch.nn.modules.")


class CapturedToken:
    """A captured computation, and what it relies on.

    Args:
        model: Whose modules run in it.
        compute: Runs the model on tensors that stay in place; returns hidden states.
        undo: Takes back what `compute` changed.
    """

    def __init__(
        self, model: nn.Module, compute: Callable[[], Tensor], undo: Callable[[], None]
    ) -> None:
        self._model = model
        self._children = [
            (module._modules, name, child)
            for module in model.modules()
            for name, child in module._modules.items()
        ]
        self._modules = list(model.modules())
        self._weights = [(weight, weight.data_ptr()) for weight in model.parameters()]
        # warmed up beside the stream that everything else waits on, as capturing asks for
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            compute()
            undo()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._hidden = compute()
        undo()

    def serves(self, model: nn.Module) -> bool:
        """Whether a replay is what the model would compute now."""
        return (
            model is self._model
            and all(children.get(name) is child for children, name, child in self._children)
            and not any(m._forward_hooks or m._forward_pre_hooks for m in self._modules)
            and all(weight.data_ptr() == place for weight, place in self._weights)
        )

    def replay(self) -> Tensor:
        """Compute a token; returns hidden states [B, 1, E] of its own."""
        self._graph.replay()
        return self._hidden.clone()


def reason_not_to_capture(model: nn.Module, device: torch.device) -> str | None:
    """Say why a model's tokens can't be captured; None if they can."""
    if device.type != "cuda":
        return f"its tensors are on {device.type}"
    places = {weight.device for weight in model.parameters()}
    if places != {device}:
        return f"its weights are on {sorted(map(str, places))}"
    for name, module in model.named_modules():
        kind = type(module)
        if not f"{kind.__module__}.".startswith(KNOWN_PACKAGES):
            return f"{name} is a {kind.__module__}.{kind.__qualname__}"
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{name} has a hook"
        if "forward" in vars(module):
            return f"{name} has a forward of its own"
    return None
