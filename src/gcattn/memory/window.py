"""Keys and values of the last W - 1 columns of each layer: what self-attention still reaches.

Shapes: B batch, L new columns, P kept columns, G key/value heads, D head dim, W window.
"""

import torch
from torch import Tensor


class WindowCache:
    """The sliding windows of one decoder's layers; all layers hold the same columns."""

    def __init__(self, num_layers: int, window_size: int) -> None:
        self._window_size = window_size
        self._keys: list[Tensor | None] = [None] * num_layers
        self._values: list[Tensor | None] = [None] * num_layers
        self._documents: Tensor | None = None  # [B, P], -1 for unused columns
        # [B, P'], columns that stay after this call; None: the last ones
        self._kept: Tensor | None = None
        self._num_kept = 0  # P'
        self._all_used = True  # every kept column of every row
        self.key_documents = torch.zeros(0, dtype=torch.long)

    def begin(self, documents: Tensor, *, all_used: bool) -> None:
        """Announce the columns of the coming call.

        Args:
            documents: Their documents, [B, L]; -1 for unused columns.
            all_used: None is unused: the host knows, and nothing has to be looked up on the device.
        """
        past = documents[:, :0] if self._documents is None else self._documents
        self.key_documents = torch.cat([past, documents], dim=1)  # [B, P + L]
        self._num_kept = min(self._window_size - 1, self.key_documents.shape[1])
        self._all_used = self._all_used and all_used
        if self._all_used:
            self._kept = None
            self._documents = self._last(self.key_documents)
            return
        # unused columns sort to the front, so the last ones kept are the last ones used
        order = (self.key_documents >= 0).int().argsort(dim=1, stable=True)
        self._kept = self._last(order)
        self._documents = self.key_documents.gather(1, self._kept)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put a layer's kept columns in front of its new ones, [B, L, G, D] → [B, P + L, G, D]."""
        keys = _joined(self._keys[layer], keys)
        values = _joined(self._values[layer], values)
        if self._kept is None:
            self._keys[layer], self._values[layer] = self._last(keys), self._last(values)
        else:
            rows = torch.arange(keys.shape[0], device=keys.device)[:, None]
            self._keys[layer] = keys[rows, self._kept]
            self._values[layer] = values[rows, self._kept]
        return keys, values

    def _last(self, x: Tensor) -> Tensor:
        """Take the columns that stay, [B, P + L, …] → [B, P', …]."""
        kept = x[:, x.shape[1] - self._num_kept :]
        # a view keeps all of a tensor alive: right for a token more, not for a segment of a prompt
        return kept.clone() if x.shape[1] > 2 * self._window_size else kept

    def select_rows(self, rows: Tensor) -> None:
        """Keep the given rows [B'] in their order; rows may repeat."""
        if self._documents is None:
            return
        rows = rows.to(self._documents.device)
        self._documents = self._documents[rows]
        self._keys = [None if x is None else x[rows] for x in self._keys]
        self._values = [None if x is None else x[rows] for x in self._values]

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that is kept, by name."""
        kept = {} if self._documents is None else {"documents": self._documents}
        for name, layers in (("keys", self._keys), ("values", self._values)):
            kept |= {f"{name}.{i}": x for i, x in enumerate(layers) if x is not None}
        return kept

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` returned."""
        self._documents = tensors.get("documents")
        self._all_used = self._documents is None or bool((self._documents >= 0).all())
        for name, layers in (("keys", self._keys), ("values", self._values)):
            layers[:] = [tensors.get(f"{name}.{i}") for i in range(len(layers))]

    def num_bytes(self) -> int:
        """Bytes of the kept keys and values."""
        kept = (*self._keys, *self._values)
        return sum(x.numel() * x.element_size() for x in kept if x is not None)


def _joined(past: Tensor | None, new: Tensor) -> Tensor:
    return new if past is None else torch.cat([past, new], dim=1)
