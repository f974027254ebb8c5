"""Keys and values of the last W - 1 columns of each layer, which self-attention still reads.

Shapes: B batch, L new columns, P kept columns, G key/value heads, D head dim, W window.
"""

from typing import Self

import torch
from torch import Tensor

from gcattn.chunking import ChunkLayout
from gcattn.memory.carried import CarriedState
from gcattn.ops.pointwise import extend_columns, take_entries


class WindowCache(CarriedState):
    """The sliding windows of one decoder's layers; all layers hold the same columns.

    Args:
        window_size: W.
        remembers: Keep the last columns for the next call.
    """

    def __init__(self, window_size: int, *, remembers: bool = True) -> None:
        super().__init__(remembers=remembers)
        self._window_size = window_size
        # [B, P'], columns that stay after this call; None: the last ones
        self._kept: Tensor | None = None
        self._num_kept = 0  # P'
        self._all_used = True  # every kept column of every row
        self.key_documents: Tensor | None = None  # [B, P + L], of the current call

    def begin(self, layout: ChunkLayout) -> None:
        """Register the columns of this call."""
        documents = layout.documents
        self.key_documents = documents
        if not self.remembers:
            return
        assert documents is not None  # only a call that keeps nothing leaves them out
        if "documents" in self._held:
            documents = torch.cat([self._held["documents"], documents], dim=1)
        self.key_documents = documents
        self._num_kept = min(self._window_size - 1, documents.shape[1])
        self._all_used = self._all_used and layout.is_full
        if self._all_used:
            self._kept = None
            self._held["documents"] = self._last(documents)
            return
        # unused columns sort to the front, so the last ones kept are the last ones used
        order = (documents >= 0).int().argsort(dim=1, stable=True)
        self._kept = self._last(order)
        self._held["documents"] = documents.gather(1, self._kept)

    def begun(self, layout: ChunkLayout) -> Self:
        """Register the columns of this call; returns the window."""
        self.begin(layout)
        return self

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put a layer's kept columns before its new ones, [B, L, G, D] → [B, P + L, G, D]."""
        if not self.remembers:
            # no layer number here: compiled layers share one graph
            return keys, values
        names = f"keys.{layer}", f"values.{layer}"
        kept = None
        if names[0] in self._held:
            kept = self._held[names[0]], self._held[names[1]]
        if self._kept is None:
            whole, last = extend_columns(kept, (keys, values), self._num_kept)
        else:
            whole, _ = extend_columns(kept, (keys, values), 0)
            last = take_entries(whole[0], self._kept), take_entries(whole[1], self._kept)
        self._held |= {name: x.detach() for name, x in zip(names, last, strict=True)}
        return whole

    def _last(self, x: Tensor) -> Tensor:
        """Take the columns that stay, [B, P + L, …] → [B, P', …]."""
        kept = x[:, x.shape[1] - self._num_kept :]
        # a view keeps the whole tensor alive: harmless after one token, not after a long segment
        return kept.clone() if x.shape[1] > 2 * self._window_size else kept

    @property
    def is_all_used(self) -> bool:
        """Whether every row is known, on the host, to use every column that is kept."""
        return self._all_used

    def replace(self, tensors: dict[str, Tensor], *, all_used: bool = False) -> None:
        """Replace the tensors, by name; `all_used` says that every row uses all their columns."""
        super().replace(tensors)
        self._all_used = all_used

    def restore(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Restore what `tensors` returned, on `device`."""
        super().restore(tensors, device)
        self._all_used = bool((self._held["documents"] >= 0).all()) if self._held else True
