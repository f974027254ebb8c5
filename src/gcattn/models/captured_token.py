"""The computation of a token as a CUDA graph: one launch instead of some hundred.

A graph replays the kernels of one run on the same tensors, and nothing else of it: no hook, no
branch of a wrapped module. So it is made only for modules that are known to have neither, and they
are looked over at every token.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

# the only place that says whether hooks for all modules exist
from torch.nn.modules.module import _has_any_global_hook

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
        self._modules = CapturedModules(model)
        self._replay, self._hidden = record(compute, undo)

    def replay(self, model: nn.Module) -> Tensor | None:
        """Compute a token; returns hidden states [B, 1, E] of its own.

        Returns None if the model would compute something else now; what was changed has to be
        undone then. Weights are looked for before, so that no memory is read that may have been
        given back; modules are looked over while the device computes.
        """
        if not self._modules.are_weights_in_place():
            return None
        self._replay()
        return self._hidden.clone() if self._modules.are_those_of(model) else None


class CapturedModules:
    """The modules of a model as they were when its token was captured."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._weights = list(model.parameters())
        self._places = [weight.data_ptr() for weight in self._weights]
        self._parts = [
            (module, type(module), dict(module._modules), _ids(module._parameters))
            for module in model.modules()
        ]

    def are_weights_in_place(self) -> bool:
        """Whether the values of every weight lie where they lay."""
        return [weight.data_ptr() for weight in self._weights] == self._places

    def are_those_of(self, model: nn.Module) -> bool:
        """Whether the model has the same modules and weights, and none is called otherwise."""
        if model is not self._model or _has_any_global_hook():
            return False
        # the host's time at every token
        for module, kind, children, weights in self._parts:
            held = vars(module)
            if (
                type(module) is not kind
                or held["_modules"] != children
                or _ids(held["_parameters"]) != weights
                or held["_forward_hooks"]
                or held["_forward_pre_hooks"]
                or "forward" in held
            ):
                return False
        return True


def _ids(weights: dict[str, nn.Parameter | None]) -> list[int]:
    # compared by ==, tensors would be compared value by value
    return [*map(id, weights.values())]


def record(
    compute: Callable[[], Tensor], undo: Callable[[], None]
) -> tuple[Callable[[], None], Tensor]:
    """Capture a computation; returns what replays it, and where it leaves its result."""
    # warmed up beside the stream that everything else waits on, as capturing asks for
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        compute()
        undo()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        hidden = compute()
    undo()
    return graph.replay, hidden


def reason_not_to_capture(model: nn.Module, device: torch.device) -> str | None:
    """Say why a model's tokens can't be captured; None if they can."""
    if device.type != "cuda":
        return f"its tensors are on {device.type}"
    places = {weight.device for weight in model.parameters()}
    if places != {device}:
        return f"its weights are on {sorted(map(str, places))}"
    if _has_any_global_hook():
        return "there are hooks for all modules"
    for name, module in model.named_modules():
        kind = type(module)
        if not f"{kind.__module__}.".startswith(KNOWN_PACKAGES):
            return f"{name} is a {kind.__module__}.{kind.__qualname__}"
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{name} has a hook"
        if "forward" in vars(module):
            return f"{name} has a forward of its own"
    return None
