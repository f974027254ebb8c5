"""A column, or a segment of a prompt, as CUDA graphs: a few launches instead of some hundred.

A graph replays the kernels of one run on the same tensors and nothing else: no hook, no branch of
a wrapped module. So it is made only for modules that are known to have neither, and these are
checked again at every call. Where the host has work to do, a graph ends, and another one begins
after it. On a CPU recorded calls stand in for graphs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from gcattn.memory.host_work import HostWork, Work
from gcattn.models.recorded_calls import RecordedCalls
from gcattn.nn.plain_calls import has_hooks_for_all_modules

# packages whose modules compute the same for every token
KNOWN_PACKAGES = ("gcattn.", "torch.nn.modules.")

Part: TypeAlias = Callable[[], None]


class CapturedStep:
    """A captured computation, and what it relies on.

    Args:
        model: Whose modules run in it.
        compute: Runs the model on tensors that stay in place; returns hidden states.
        undo: Undoes what the kernels of `compute` changed.
        work: The host's work in between.
    """

    def __init__(
        self,
        model: nn.Module,
        compute: Callable[[], Tensor],
        undo: Callable[[], None],
        work: HostWork,
    ) -> None:
        self._modules = CapturedModules(model)
        on_gpu = next(model.parameters()).is_cuda
        graphs = Graphs() if on_gpu else RecordedCalls()
        self._parts, self._hidden = record(compute, undo, work, graphs)

    def replay(self, model: nn.Module, *, checks_last: bool = False) -> Tensor | None:
        """Compute a call; returns hidden states of its own.

        Returns None if the model would compute something else now; then the caller must undo what
        the kernels changed. Weights are checked before the launch, so that no freed memory is read;
        modules are checked while the device computes.

        Args:
            model: It must have the modules that were captured.
            checks_last: Check modules when everything has been launched: the device need not wait,
                but the caller must also undo what the host did. Otherwise the host does nothing
                before.
        """
        if not self._modules.are_weights_in_place():
            return None
        first, *rest = self._parts
        first()
        if not checks_last and not self._modules.are_those_of(model):
            return None
        for part in rest:
            part()
        if checks_last and not self._modules.are_those_of(model):
            return None
        return self._hidden.clone()


class CapturedModules:
    """The modules of a model as they were when its step was captured."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._weights = list(model.parameters())
        self._places = [weight.data_ptr() for weight in self._weights]
        self._parts = [
            (module, type(module), vars(module), dict(module._modules), _ids(module._parameters))
            for module in model.modules()
        ]

    def are_weights_in_place(self) -> bool:
        """Whether the values of every weight are where they were."""
        return [*map(Tensor.data_ptr, self._weights)] == self._places

    def are_those_of(self, model: nn.Module) -> bool:
        """Whether the model has the same modules and weights, called in the same way."""
        if model is not self._model or has_hooks_for_all_modules():
            return False
        # plain code: the host runs it at every call; most modules have either children or weights
        for module, kind, held, children, weights in self._parts:
            parameters = held["_parameters"]
            if (
                type(module) is not kind
                or held["_modules"] != children
                or ((parameters or weights) and _ids(parameters) != weights)
                or held["_forward_hooks"]
                or held["_forward_pre_hooks"]
                or "forward" in held
            ):
                return False
        return True


def _ids(weights: dict[str, nn.Parameter | None]) -> list[int]:
    # by id: == would compare tensors value by value
    return [*map(id, weights.values())]


def record(
    compute: Callable[[], Tensor],
    undo: Callable[[], None],
    work: HostWork,
    graphs: "Graphs | RecordedCalls",
) -> tuple[list[Part], Tensor]:
    """Capture a computation; returns what replays it, and where it leaves its result.

    The parts are graphs and, between them, the host's work, which is not done while capturing.
    """
    parts = list[Part]()

    def cut(host: Work) -> None:
        parts.extend([graphs.end(), host])
        graphs.begin()

    with graphs.beside():
        if graphs.warms_up:
            with work.taken_by(lambda _: None):
                compute()
                undo()
            graphs.make_room()
        graphs.begin()
        try:
            with work.taken_by(cut):
                hidden = compute()
        finally:
            last = graphs.end()
    undo()
    return [*parts, last], hidden


class Graphs:
    """Captures one graph after another; their tensors share a pool, as they run in that order."""

    warms_up = True  # libraries allocate in a first run, which no graph may hold

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._graph = torch.cuda.CUDAGraph()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Run beside the stream that everything else waits on, as capturing asks for."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(side):
                yield
        finally:
            torch.cuda.current_stream().wait_stream(side)

    def make_room(self) -> None:
        """Free what the allocator keeps for later, of the first run too: a capture can't."""
        torch.cuda.empty_cache()

    def begin(self) -> None:
        """Begin a graph."""
        self._graph = torch.cuda.CUDAGraph()
        self._graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")

    def end(self) -> Part:
        """End the graph; returns what replays it."""
        self._graph.capture_end()
        return self._graph.replay


def reason_not_to_capture(model: nn.Module, device: torch.device) -> str | None:
    """Say why a model's steps can't be captured; None if they can."""
    if device.type not in ("cuda", "cpu"):
        return f"its tensors are on {device.type}"
    places = {weight.device for weight in model.parameters()}
    if places != {device}:
        return f"its weights are on {sorted(map(str, places))}"
    if has_hooks_for_all_modules():
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
