"""The order in which rows are read: the whole run as one sequence, fixed by its seed."""

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Sampler


class RowSampler(Sampler[int]):
    """Pass over all rows in a new order as often as the run needs.

    The run is one sequence of `num_samples` rows whatever the number of rows, so that the step of
    a checkpoint says exactly where the data stand, and every batch is full.

    Args:
        num_rows: Rows of the dataset.
        num_samples: Rows of the whole run, over all devices.
        seed: The same on every device.
    """

    def __init__(self, num_rows: int, num_samples: int, seed: int) -> None:
        self.num_rows = num_rows
        self.num_samples = num_samples
        self.seed = seed

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        left = self.num_samples
        number = 0
        while left > 0:
            generator = torch.Generator().manual_seed(mix_seeds(self.seed, number))
            order = torch.randperm(self.num_rows, generator=generator)[:left]
            yield from order.tolist()
            left -= len(order)
            number += 1


class LengthSampler(Sampler[tuple[int, int]]):
    """Pair every row with the length of its step, for rows that must know where they are cut.

    Args:
        rows: The rows of the run, in order.
        length_of: Length by position in that order.
    """

    def __init__(self, rows: RowSampler, length_of: Callable[[int], int]) -> None:
        self.rows = rows
        self.length_of = length_of

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for position, row in enumerate(self.rows):
            yield row, self.length_of(position)


def mix_seeds(*numbers: int) -> int:
    """Combine numbers into one 63-bit seed; neighbours give unrelated seeds."""
    state = 0
    for number in numbers:
        # the finalizer of splitmix64
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state >> 1
