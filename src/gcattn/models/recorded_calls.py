"""The computation of a column as lists of calls: what CUDA graphs are to a GPU, for a CPU.

The operators of a single column are so small that most of the time goes to modules, views and
allocations. So one run is recorded. A replay keeps its views and constants, and writes every other
result into the tensor that held it in the recorded run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from gcattn.ops.native import join_kernels, set_recorder

Call = Callable[[], Any]

# what such operators return depends on the host or on chance, so they can't be repeated
UNREPEATABLE = {
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.nondeterministic_seeded,
}
# tagged for their dropout, which is off in generation
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_attention_math.default,
}
# these leave what they return to be written
UNWRITTEN = {"empty", "new_empty", "empty_like", "empty_strided"}
# no function of torch writes the result of these into a tensor
ONLY_AS_OPERATOR = {
    torch.ops.aten.embedding.default: torch.ops.aten.embedding.out,
    torch.ops.aten.index.Tensor: torch.ops.aten.index.Tensor_out,
}
# these read only the shape of a tensor
FILLS = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}


class RecordedCalls:
    """Records one list of calls after another, as `captured_step.Graphs` captures graphs."""

    warms_up = False

    def __init__(self) -> None:
        self._recordings: list[Recording] = []
        self._is_ready = False

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Make tensors that later calls can write into, whatever their mode."""
        with torch.inference_mode(False), torch.no_grad():
            yield

    def make_room(self) -> None:
        """Do nothing: there is no first run."""

    def begin(self) -> None:
        """Begin a list."""
        self._recordings.append(Recording())
        self._recordings[-1].__enter__()

    def end(self) -> Callable[[], None]:
        """End the list; returns what replays it, after the last one has ended."""
        recording = self._recordings[-1]
        recording.__exit__(None, None, None)
        return partial(self._replay, recording)

    def _replay(self, recording: "Recording") -> None:
        if not self._is_ready:
            _drop_constants([r.recorded for r in self._recordings])
            for each in self._recordings:
                each.calls = join_kernels([recorded.call for recorded in each.recorded])
            self._is_ready = True
        for call in recording.calls:
            call()


class Recorded(NamedTuple):
    """A call that a replay repeats.

    Attributes:
        call: Repeats it on the same tensors.
        read: Storages that it reads.
        new: Storages of its results.
        written: Storages that it writes besides.
    """

    call: Call
    read: set[int]
    new: set[int]
    written: set[int]


class Recording(TorchDispatchMode):
    """Runs every operator and notes how to repeat it."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded: list[Recorded] = []
        self.calls: list[Call] = []  # what a replay runs
        self._kept: list[Any] = []  # so that no other tensor takes the place of one

    def __enter__(self) -> Self:
        """Record from here on."""
        set_recorder(self)
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        """Record no longer."""
        set_recorder(None)
        super().__exit__(*raised)

    def note(self, call: Call, read: list[Tensor], written: list[Tensor]) -> None:
        """Note a call of a compiled kernel, which no operator makes."""
        self._kept.append((read, written))
        places = set(map(_place, read)), set[int](), set(map(_place, written))
        self.recorded.append(Recorded(call, *places))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator.

        Raises:
            RuntimeError: It can't be repeated.
        """
        kwargs = kwargs or {}
        inputs = _tensors((args, kwargs))
        if not _is_repeatable(func, args) or any(
            type(x) not in (Tensor, nn.Parameter) for x in inputs
        ):
            raise RuntimeError(f"{func} can't be repeated")
        read = set(map(_place, inputs))
        written = {_place(x) for x in _written(func, args, kwargs)}
        if written:
            call, out = _in_place(func, args, kwargs)
            self._kept.append((args, kwargs))
            self.recorded.append(Recorded(call, read, set(), written))
            return out
        out = func(*args, **kwargs)
        self._kept.append((args, kwargs, out))
        if _name(func) in UNWRITTEN:
            return out
        results = [x for x in _tensors(out) if x.numel() and _place(x) not in read]
        if results:  # else there are only views
            call = _into(_tensors(out), func, args, kwargs)
            read = set() if _name(func) in FILLS else read
            self.recorded.append(Recorded(call, read, set(map(_place, results)), set()))
        return out


def _drop_constants(lists: list[list[Recorded]]) -> None:
    """Drop the calls that return the same in every replay, and keep their results."""
    written = set[int]().union(*(r.written for recorded in lists for r in recorded))
    constant = set[int]()
    for recorded in lists:
        kept = []
        for r in recorded:
            if r.written or not r.read <= constant or r.new & written:
                kept.append(r)
            else:
                constant |= r.new
        recorded[:] = kept


def _is_repeatable(operator: OpOverload, args: tuple[Any, ...]) -> bool:
    if operator is torch.ops.aten.lift_fresh.default:
        return False  # a number of the host
    if operator is torch.ops.aten.index.Tensor:
        return all(x.dtype not in (torch.bool, torch.uint8) for x in _tensors(args[1]))
    return operator in ATTENTION or not UNREPEATABLE.intersection(operator.tags)


def _written(operator: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    if not operator._schema.is_mutable:
        return []
    parameters = operator._schema.arguments
    given = {p.name: x for p, x in zip(parameters, args, strict=False)} | kwargs
    return _tensors([given.get(p.name) for p in parameters if p.is_write])


# Python calls methods and functions of torch faster than an `OpOverload`. Few of them take other
# arguments, which a TypeError tells before anything is computed.


def _in_place(
    operator: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Call, Any]:
    """Call once; returns what repeats it, and what it returned."""
    method = getattr(args[0], _name(operator), None) if args else None
    if method is not None:
        call = partial(method, *args[1:], **kwargs)
        with suppress(TypeError):
            return call, call()
    call = partial(operator, *args, **kwargs)
    return call, call()


def _into(
    results: list[Tensor], operator: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Call:
    """Repeat with the results in the same places."""
    name = _name(operator)
    if name in ("_to_copy", "clone"):
        return partial(results[0].copy_, args[0])
    short = name.removeprefix("linalg_")
    functions = [getattr(holder, short, None) for holder in (torch, torch._C._nn, torch.linalg)]
    for function in [ONLY_AS_OPERATOR.get(operator), *functions]:
        if function is not None and len(results) == 1:
            call = partial(function, *args, **kwargs, out=results[0])
            with suppress(TypeError):
                call()
                return call
    return partial(_copy_all, results, partial(operator, *args, **kwargs))


def _copy_all(results: list[Tensor], call: Call) -> None:
    for held, x in zip(results, _tensors(call()), strict=True):
        held.copy_(x)


def _name(operator: OpOverload) -> str:
    name: str = operator._schema.name
    return name.split("::")[1]


def _tensors(tree: Any) -> list[Tensor]:
    """Return the tensors among arguments or results: PyTorch's own way takes far longer."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (tuple, list)):
        return []
    return [x for part in tree for x in _tensors(part)]


def _place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
