"""The results of an evaluation by length: means over documents, by position in powers of two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A mean over documents and its standard error, None where there is one document only."""

    mean: float
    standard_error: float | None


@dataclass(frozen=True)
class PositionBucket:
    """Loss of the tokens with `start` … `stop`-1 tokens before them, in nats per token."""

    start: int
    stop: int
    loss: Estimate


@dataclass(frozen=True)
class LengthResult:
    """Losses of a model on the first `length` tokens of documents that have at least that many.

    Attributes:
        length: Tokens read of every document.
        num_documents: Documents read.
        num_predicted_tokens: Tokens with a loss: all but the first of every document.
        loss: Nats per token.
        perplexity: exp of the mean loss.
        bits_per_byte: Bits per byte of the predicted text.
        positions: The loss by number of tokens before, in powers of two.
    """

    length: int
    num_documents: int
    num_predicted_tokens: int
    loss: Estimate
    perplexity: float
    bits_per_byte: Estimate
    positions: list[PositionBucket]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a result file."""
        return asdict(self)


def summarize(
    length: int, losses: Sequence[Tensor], bits_per_byte: Sequence[float]
) -> LengthResult:
    """Average over documents.

    Args:
        length: Tokens read of every document (L).
        losses: `bucket_means` of every document.
        bits_per_byte: One value for every document.
    """
    whole, *buckets = torch.stack(list(losses), dim=1)
    loss = _estimate(whole)
    return LengthResult(
        length=length,
        num_documents=len(losses),
        num_predicted_tokens=len(losses) * (length - 1),
        loss=loss,
        perplexity=math.exp(loss.mean),
        bits_per_byte=_estimate(torch.tensor(bits_per_byte, dtype=torch.float64)),
        positions=[
            PositionBucket(start, stop, _estimate(bucket))
            for (start, stop), bucket in zip(bucket_bounds(length), buckets, strict=True)
        ],
    )


def bucket_bounds(length: int) -> list[tuple[int, int]]:
    """Return the ranges [1, 2), [2, 4), [4, 8), … of positions 1 … length-1."""
    starts = [2**exponent for exponent in range((length - 1).bit_length())]
    return [(start, min(2 * start, length)) for start in starts]


def bucket_means(losses: Tensor) -> Tensor:
    """Average losses [L-1], of positions from 1 on, over all positions, then over each bucket."""
    bounds = bucket_bounds(len(losses) + 1)
    buckets = [losses[start - 1 : stop - 1].mean() for start, stop in bounds]
    return torch.stack([losses.mean(), *buckets])


def _estimate(values: Tensor) -> Estimate:
    """Summarize one value per document."""
    mean = float(values.mean())
    if len(values) == 1:
        return Estimate(mean, None)
    return Estimate(mean, float(values.std()) / math.sqrt(len(values)))
