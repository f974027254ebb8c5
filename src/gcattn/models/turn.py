"""One call of `generate`: which rows have ended, what was retrieved, what has not been read.

Shapes: B rows, T tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.generation import StoppingCriteriaList

from gcattn.memory.cache import DRTCache
from gcattn.memory.carried import Snapshot
from gcattn.memory.token_log import LAST_IS_READ


class EndedRows(StoppingCriteriaList):
    """Stopping criteria that remember which rows have ended.

    Attributes:
        before_last: Rows that had ended before the last token, bool [B]; None if none had: what
            follows the end of a row is padding.
    """

    def __init__(self, criteria: StoppingCriteriaList) -> None:
        super().__init__(criteria)
        self.before_last: Tensor | None = None
        self._ended: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        """Return which rows end with their last token, bool [B]."""
        ends = super().__call__(input_ids, scores, **kwargs)
        self.before_last = self._ended
        self._ended = ends if self._ended is None else self._ended | ends
        return ends


@dataclass
class Turn:
    """What one call of `generate` keeps beyond what transformers passes along.

    Attributes:
        ended: Rows that have ended; None for beams, whose rows change places.
        after_prompt: The cache as it was after the prompt.
        retrieval: What the landmarks of every call retrieved; None if it is not asked for.
    """

    ended: EndedRows | None = None
    after_prompt: dict[str, Snapshot] | None = None
    retrieval: list[Any] | None = None

    def mask(self, num_rows: int, device: torch.device) -> Tensor | None:
        """Return 0 for rows whose new token is padding, [B, 1]; None if none is."""
        if self.ended is None or self.ended.before_last is None:
            return None
        running = ~self.ended.before_last.to(device)
        # if all have ended, this process only keeps step with others that still run
        return None if running.all() or not running.any() else running.long()[:, None]

    def collect(self, outputs: Any) -> None:
        """Keep what the landmarks of one call retrieved."""
        if self.retrieval is not None:
            self.retrieval.append(outputs.retrieval)

    def with_retrieval(self, result: Any) -> Any:
        """Add what was retrieved to what `generate` returns, one entry for each call."""
        if self.retrieval is not None:
            result["retrieval"] = tuple(self.retrieval)
        return result

    def note_last(self, cache: DRTCache, sequences: Tensor) -> None:
        """Tell the cache each row's last token, which no call has read.

        In rows that ended before others it has been read, while the others continued.
        """
        last = sequences[:, -1]
        if self.ended is not None and self.ended.before_last is not None:
            last = torch.where(self.ended.before_last.to(last.device), LAST_IS_READ, last)
        cache.log.note_generated(last)
