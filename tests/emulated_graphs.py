"""A stand-in for CUDA graphs on a CPU: what was run is run again, on the same tensors."""

from contextlib import nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# a graph that is being captured may not wait for the host's numbers
HOST_NUMBERS = {torch.ops.aten.lift_fresh.default, torch.ops.aten.nonzero.default}


class EmulatedGraphs:
    """Stands in for `captured_step.Graphs`, more strictly than `RecordedCalls`.

    As with a real graph, nothing of the lines that were captured runs again but the kernels.

    Attributes:
        replays: Graphs that were replayed, of all.
        is_stale: Every result is replaced by nonsense.
    """

    replays, is_stale = 0, False
    warms_up = True

    def beside(self):
        return nullcontext()

    def make_room(self):
        pass

    def begin(self):
        self._mode = _Calls()
        self._mode.__enter__()

    def end(self):
        self._mode.__exit__(None, None, None)
        return self._mode.replay


class _Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self._calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in HOST_NUMBERS:
            raise RuntimeError(f"{func} asks the host while a graph is captured")
        call = (func, args, kwargs or {})
        out = func(*args, **call[2])
        self._calls.append((*call, out))
        return out

    def replay(self):
        assert self._calls  # CUDA warns of an empty graph
        EmulatedGraphs.replays += 1
        for func, args, kwargs, out in self._calls:
            read = {_place(x) for x in _tensors((args, kwargs))}
            for held, new in zip(_tensors(out), _tensors(func(*args, **kwargs)), strict=True):
                if _place(held) in read:
                    continue  # a view, or written in place
                held.copy_(new)
                if EmulatedGraphs.is_stale and held.is_floating_point():
                    held.fill_(torch.nan)


def _tensors(tree):
    return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]


def _place(x):
    return x.untyped_storage().data_ptr()
