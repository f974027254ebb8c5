"""What a forward call continues from and leaves behind: the carried states, all in one place.

Every call runs on a stream. This one keeps nothing, as in training; `DRTCache` keeps all that the
next call needs. To add a carried state: a file with its class, a line in `Stream.__init__`, a line
where the model extends it. Row selection, byte counts, saving, loading and rollback then work
without more code.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from torch import Tensor

from gcattn.memory.carried import CarriedState
from gcattn.memory.chunk_source import ChunkSource, EncodedChunks
from gcattn.memory.chunk_tail import ChunkTail
from gcattn.memory.column_tail import ColumnTail
from gcattn.memory.landmark_window import LandmarkWindow
from gcattn.memory.last_retrieval import LastRetrieval
from gcattn.memory.open_chunk import OpenChunk
from gcattn.memory.position import Position
from gcattn.memory.recurrence import RecurrentStates
from gcattn.memory.token_log import TokenLog
from gcattn.memory.window import WindowCache

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


class Stream:
    """A stream of one call: nothing comes before it, nothing is kept.

    Args:
        config: Configuration of the model that runs on it.
    """

    remembers = False

    def __init__(self, config: "DRTConfig") -> None:
        keep = self.remembers
        self.log = TokenLog(remembers=keep)
        self.position = Position(remembers=keep)
        self.last_columns = ColumnTail(config.embedding_convolution_size - 1, remembers=keep)
        self.lower_window = _window(config, keep)
        self.recurrent_states = RecurrentStates(remembers=keep)
        self.recurrent_open_chunk = OpenChunk(remembers=keep)
        self.open_chunk = OpenChunk(remembers=keep)
        self.open_chunk_ids = OpenChunk(remembers=keep)
        self.chunk_tail = ChunkTail(remembers=keep)
        self.upper_window = _window(config, keep)
        self.last_retrievals = [
            LastRetrieval(remembers=keep) for _ in range(config.num_retrieval_groups)
        ]

    def states(self) -> dict[str, CarriedState]:
        """Return every carried state, by the name that it is saved under."""
        groups = {f"serving.{r}": state for r, state in enumerate(self.last_retrievals)}
        return {
            "log": self.log,
            "state": self.position,
            "last_columns": self.last_columns,
            "lower": self.lower_window,
            "recurrent": self.recurrent_states,
            "recurrent_open_chunk": self.recurrent_open_chunk,
            "open_chunk": self.open_chunk,
            "open_chunk_ids": self.open_chunk_ids,
            "chunk_tail": self.chunk_tail,
            "upper": self.upper_window,
            **groups,
        }

    @property
    def chunks(self) -> ChunkSource | None:
        """The chunks that earlier calls finished; None where there was no earlier call."""
        return None

    def append(self, chunks: EncodedChunks, counts: Tensor) -> ChunkSource:
        """Add the first `counts` [B] chunks of each row; return all that can be retrieved."""
        return chunks

    def call(self) -> AbstractContextManager[None]:
        """Enclose one call: it is committed at the end, or leaves no trace if it fails."""
        return nullcontext()


class ReadingStream(Stream):
    """A stream that continues from call to call but keeps no chunks.

    The caller takes the chunks as they are finished; see `DRTModel.encode_chunks`.
    """

    remembers = True

    def __init__(self, config: "DRTConfig") -> None:
        super().__init__(config)
        self.log = TokenLog(remembers=False)  # a log of a billion tokens would serve nothing

    def select_rows(self, rows: Tensor) -> None:
        """Keep the given rows [B'] in their order."""
        for state in self.states().values():
            state.select_rows(rows)


def _window(config: "DRTConfig", remembers: bool) -> WindowCache:
    if config.self_attention == "landmark":
        return LandmarkWindow(remembers=remembers)
    return WindowCache(config.window_size, remembers=remembers)
