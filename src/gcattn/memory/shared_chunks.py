"""Read-only chunks that any number of streams share.

Shapes: N shared chunks, Q queries, K chosen chunks, E hidden size.
"""

from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from gcattn.memory.stores.store import ChunkReader
from gcattn.ops.chunk_topk.running_best import BestChunks

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


class SharedLandmarks(Protocol):
    """The landmarks of shared chunks."""

    @property
    def may_be_chosen(self) -> Tensor:
        """Which chunks may be chosen, bool [N]."""

    def best(self, queries: Tensor, top_k: int) -> BestChunks:
        """Return the K chunks with the best scores for each query [Q, E], and the scores [Q, K]."""

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place."""

    def at(self, numbers: Tensor) -> Tensor:
        """Return the landmarks of chunks, [*numbers.shape, E], where the queries are."""


class SharedChunks(Protocol):
    """A memory that streams extend with chunks of their own."""

    @property
    def num_chunks(self) -> int:
        """Chunks N, those that may not be chosen included."""

    @property
    def landmarks(self) -> SharedLandmarks:
        """The landmarks, by which chunks are chosen."""

    @property
    def reader(self) -> ChunkReader:
        """Their keys and values."""

    def check_sizes(self, config: "DRTConfig") -> None:
        """Refuse a model of other sizes.

        Raises:
            ValueError: A size differs.
        """

    def bind(self, model: nn.Module) -> None:
        """Register the `DRTModel` that reads: its device and its dtype.

        Raises:
            ValueError: It did not make the chunks: it has other sizes or other weights.
        """
