"""Shapes of the operator that are measured.

Letters: B batch, L columns, C chunks, H query heads, G key/value heads, D head dim, S slots per
chunk, K retrieved chunks, W window.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from gcattn.evals.lengths import format_length

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class OperatorShape:
    """Sizes of one measurement.

    Raises:
        ValueError: A size is too small, or sizes do not fit each other.
    """

    batch: int = 1
    length: int
    heads: int = 12
    kv_heads: int = 12
    head_dim: int = 64
    top_k: int = 8
    chunk_size: int = 64
    window: int = 512
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "dtype" and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}.")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads = {self.heads} must be a multiple of kv_heads = {self.kv_heads}."
            )
        if self.length % self.chunk_size or self.length < 2 * self.chunk_size:
            raise ValueError(
                f"A length must be a multiple of chunk_size = {self.chunk_size} and at least two "
                f"chunks, got {self.length}."
            )

    @property
    def num_chunks(self) -> int:
        """C."""
        return self.length // self.chunk_size

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of queries, keys and values."""
        return DTYPES[self.dtype]

    def label(self) -> str:
        """Return the shape in letters."""
        heads = f"H{self.heads}" + ("" if self.kv_heads == self.heads else f" G{self.kv_heads}")
        return (
            f"B{self.batch} L{format_length(self.length)} {heads} D{self.head_dim} "
            f"K{self.top_k} S{self.chunk_size}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the sizes by name."""
        return asdict(self)


def anchor_shapes(dtype: str = "bfloat16", *, length: int = 16_384) -> list[OperatorShape]:
    """Return the shapes that are followed from version to version; a CPU gets shorter ones."""
    first = OperatorShape(length=length, dtype=dtype)
    return [first, replace(first, batch=4), replace(first, heads=16, kv_heads=16, head_dim=128)]


def shapes_by_length(shape: OperatorShape, lengths: Sequence[int]) -> list[OperatorShape]:
    """Return the shape at each of the lengths."""
    return [replace(shape, length=length) for length in lengths]
