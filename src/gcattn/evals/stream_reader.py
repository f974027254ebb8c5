"""Reading of a stream that is too long for one call, then asking: greedy, and as `generate` does.

Shapes: B rows that share a past, n tokens, F finished chunks, K retrieved chunks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gcattn.chunking import prompt_breaks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class StreamReader:
    """A model in the middle of a text, with everything that it remembers of it.

    Args:
        model: A causal language model in evaluation mode.

    Attributes:
        retrieved: Chunks that served the last call in any retrieval group, for the first row; None
            for a model that retrieves nothing.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        from gcattn.models import DRTConfig

        self._model: Any = model
        self._is_drt = isinstance(model.config, DRTConfig)
        self._retrieves = self._is_drt and model.config.retrieval_method != "none"
        self._cache: Any = None
        self._serving: list[set[int]] = []
        self.retrieved: set[int] | None = set() if self._retrieves else None

    def read(self, segments: Iterable[np.ndarray]) -> None:
        """Read on; only what later tokens need is computed."""
        for segment in segments:
            token_ids = torch.from_numpy(segment)[None].to(self._model.device)
            self._forward(token_ids, logits_to_keep=1)

    def ask(self, token_ids: Tensor) -> Tensor:
        """Read a prompt [B, n], n >= 2, and return the likeliest next tokens [B].

        The open chunk closes in front of the prompt's last token, as in `generate`.
        """
        extra: dict[str, Any] = {}
        if self._is_drt:
            extra["chunk_breaks"] = prompt_breaks(torch.ones_like(token_ids, dtype=torch.bool))
        return self._next(token_ids, **extra)

    def feed(self, token_ids: Tensor) -> Tensor:
        """Read one token in each row, [B], and return the likeliest next ones [B]."""
        return self._next(token_ids[:, None])

    def fork(self, num_rows: int) -> None:
        """Go on in `num_rows` rows with the same past."""
        if self._cache is not None:
            self._cache.batch_repeat_interleave(num_rows)

    def num_bytes(self) -> dict[str, int] | None:
        """Return the bytes that the past takes by place; None for caches that do not say."""
        return self._cache.num_bytes() if self._is_drt and self._cache is not None else None

    def synchronized_time(self) -> float:
        """Return the time in seconds when everything asked of the device so far is done."""
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)
        return time.perf_counter()

    def _next(self, token_ids: Tensor, **extra: Any) -> Tensor:
        if self._retrieves:
            extra["output_retrieval"] = True
        output = self._forward(token_ids, logits_to_keep=1, **extra)
        if self._retrieves:
            # the last landmark before a token is the one whose retrieval serves it
            groups = [selection.indices[0] for selection in output.retrieval]  # [F, K]
            if groups and len(groups[0]):
                self._serving = [set(group[-1].tolist()) - {-1} for group in groups]
            self.retrieved = set().union(*self._serving)
        return output.logits[:, -1].argmax(-1)

    @torch.no_grad()
    def _forward(self, token_ids: Tensor, **extra: Any) -> Any:
        output = self._model(
            input_ids=token_ids, past_key_values=self._cache, use_cache=True, **extra
        )
        self._cache = output.past_key_values
        if self._cache is None:
            raise ValueError(
                f"{type(self._model).__name__} returns no past_key_values to go on from."
            )
        return output
