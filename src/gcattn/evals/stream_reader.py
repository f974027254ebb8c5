"""Reads texts too long for one call, then asks, greedily and as `generate` does.

Shapes: B rows, n tokens, F finished chunks, K retrieved chunks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gcattn.chunking import prompt_breaks, whole_chunks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gcattn.memory.saved import SavedMemory


class StreamReader:
    """A model partway through several texts, one per row, with its cache.

    Rows may get different numbers of tokens; models other than a DRT need equal numbers.

    Args:
        model: A causal language model in evaluation mode.
        num_rows: Number of texts, B.
        expected_tokens: Tokens of the longest text, if known, so that memory is allocated at once.
        memory: What a DRT read before, as its past in every row.

    Attributes:
        retrieved: For each row the chunks that served the last call in any retrieval group; None
            for a model that retrieves nothing.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        num_rows: int = 1,
        expected_tokens: int = 0,
        memory: SavedMemory | None = None,
    ) -> None:
        from gcattn.memory.cache import DRTCache
        from gcattn.models import DRTConfig

        self._model: Any = model
        self._is_drt = isinstance(model.config, DRTConfig)
        self._retrieves = self._is_drt and model.config.retrieval_method != "none"
        self._cache: Any = None
        if self._is_drt:
            config: Any = model.config
            self._cache = DRTCache(config, memory=memory, expected_tokens=expected_tokens)
        self.retrieved: list[set[int]] | None = None
        if self._retrieves:
            self.retrieved = [set() for _ in range(num_rows)]

    def whole_segment(self, num_tokens: int) -> int:
        """Round the tokens to read in one call to whole chunks, if the model has chunks."""
        return (
            whole_chunks(num_tokens, self._model.config.chunk_size) if self._is_drt else num_tokens
        )

    def read(self, rows: Sequence[np.ndarray]) -> None:
        """Continue reading in each row; only what later tokens need is computed."""
        token_ids, valid = _joined(rows)
        if token_ids.shape[1]:
            self._forward(token_ids, valid, logits_to_keep=1)

    def ask(self, rows: Sequence[np.ndarray]) -> Tensor:
        """Read a prompt of at least two tokens in each row; return the most likely next tokens [B].

        The open chunk closes before the prompt's last token, as in `generate`.
        """
        token_ids, valid = _joined(rows)
        extra: dict[str, Any] = {}
        if self._is_drt:
            whole = torch.ones_like(token_ids, dtype=torch.bool) if valid is None else valid
            extra["chunk_breaks"] = prompt_breaks(whole).to(self._model.device)
        return self._next(token_ids, valid, **extra)

    def feed(self, tokens: Sequence[int | None]) -> Tensor:
        """Read one token in each row, none where it is None; return the likely next ones [B]."""
        rows = [np.array([] if token is None else [token], dtype=np.int64) for token in tokens]
        return self._next(*_joined(rows))

    def fork(self, copies: int) -> None:
        """Continue in `copies` rows for each row, side by side, with the same past."""
        if self._cache is not None:
            self._cache.batch_repeat_interleave(copies)
        if self.retrieved is not None:
            self.retrieved = [set(held) for held in self.retrieved for _ in range(copies)]

    def num_bytes(self) -> dict[str, int] | None:
        """Return the bytes of the past by place; None for caches that do not report them."""
        return self._cache.num_bytes() if self._is_drt and self._cache is not None else None

    def synchronized_time(self) -> float:
        """Wait for the device, and return the time in seconds."""
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)
        return time.perf_counter()

    def _next(self, token_ids: Tensor, valid: Tensor | None, **extra: Any) -> Tensor:
        if self._retrieves:
            extra["output_retrieval"] = True
        output = self._forward(token_ids, valid, logits_to_keep=1, **extra)
        if self.retrieved is not None:
            groups = [selection.indices.tolist() for selection in output.retrieval]  # [B, F, K]
            for row in range(len(self.retrieved)):
                # a token uses the retrieval of the last landmark before it; one that
                # found nothing belongs to a chunk that this row did not finish
                found = [[set(chunks) - {-1} for chunks in group[row]] for group in groups]
                last = [[chunks for chunks in group if chunks][-1:] for group in found]
                if any(last):
                    self.retrieved[row] = set().union(
                        *(chunks for group in last for chunks in group)
                    )
        return output.logits[:, -1].argmax(-1)

    @torch.no_grad()
    def _forward(self, token_ids: Tensor, valid: Tensor | None, **extra: Any) -> Any:
        from gcattn.models.cache_name import CACHE_NAME, named_cache

        device = self._model.device
        if valid is not None:
            if not self._is_drt:
                raise ValueError(
                    f"{type(self._model).__name__} reads rows of equal length only; put one sample "
                    "at a time to it."
                )
            extra["attention_mask"] = valid.to(device)
        extra |= named_cache(self._cache)
        output = self._model(input_ids=token_ids.to(device), use_cache=True, **extra)
        self._cache = getattr(output, CACHE_NAME)
        if self._cache is None:
            raise ValueError(f"{type(self._model).__name__} returns no cache to continue from.")
        return output


def _joined(rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor | None]:
    """Batch rows as [B, n], padded in front; the mask is None without padding."""
    width = max(len(row) for row in rows)
    token_ids = torch.zeros(len(rows), width, dtype=torch.long)
    valid = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        token_ids[number, width - len(row) :] = torch.from_numpy(row)
        valid[number, width - len(row) :] = True
    return token_ids, None if bool(valid.all()) else valid
