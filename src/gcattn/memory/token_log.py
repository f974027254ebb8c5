"""Which tokens a stream has read, and in which chunk each of them is.

With it the text of a retrieved chunk is found, and a prompt that repeats what was read is told from
one that holds new tokens only.

Shapes: B batch, T tokens of a call, P tokens read, padding included.
"""

import torch
from torch import Tensor

from gcattn.memory.carried import CarriedState

# unknown id: the token came as an embedding
UNKNOWN = -1
# in place of an id: the last token that `generate` returned for a row has been read
NOTHING_GENERATED, LAST_IS_READ = -1, -2


class TokenLog(CarriedState):
    """Ids [B, P] on the model's device, chunk numbers [B, P] on the CPU, -1 for padding.

    Both are extended in place, like the chunk memory.

    Attributes:
        num_tokens: P, tokens read per row, padding included and landmarks not.
    """

    def __init__(self, *, remembers: bool = True) -> None:
        super().__init__(remembers=remembers)
        self.num_tokens = 0
        self._ids = torch.zeros(0, 0, dtype=torch.int32)
        self._chunks = torch.zeros(0, 0, dtype=torch.int32)
        self._last_generated: Tensor | None = None  # [B], on the CPU

    @property
    def ids(self) -> Tensor:
        """Ids of the tokens, [B, P]; `UNKNOWN` where they came as embeddings."""
        return self._ids[:, : self.num_tokens]

    @property
    def chunks(self) -> Tensor:
        """Number of each token's chunk in its row, [B, P]; -1 for padding."""
        return self._chunks[:, : self.num_tokens]

    @property
    def last_generated(self) -> Tensor:
        """Last token that `generate` returned for each row and no call has read, [B]."""
        if self._last_generated is None:
            return torch.full((self._ids.shape[0],), NOTHING_GENERATED)
        return self._last_generated

    def extend(self, input_ids: Tensor | None, chunks: Tensor) -> None:
        """Append the tokens of a call: ids and chunk numbers, [B, T]."""
        if not self.remembers:
            return
        B, num_tokens = chunks.shape
        if input_ids is None:
            input_ids = torch.full_like(chunks, UNKNOWN)
        start, end = self.num_tokens, self.num_tokens + num_tokens
        self._ids = _with_room(self._ids, B, start, end, input_ids.device)
        self._chunks = _with_room(self._chunks, B, start, end, chunks.device)
        self._ids[:, start:end] = input_ids
        self._chunks[:, start:end] = chunks
        self.num_tokens = end
        self._last_generated = None

    def note_generated(self, last: Tensor) -> None:
        """Note the last token that `generate` returned for each row, [B], or `LAST_IS_READ`."""
        self._last_generated = last.cpu()

    def span(self, row: int, chunk: int) -> tuple[int, int]:
        """Return the first token of a chunk and the one after its last, counted with padding.

        Raises:
            IndexError: The row has no such chunk.
        """
        at = (self.chunks[row] == chunk).nonzero().flatten()
        if chunk < 0 or not len(at):
            raise IndexError(f"Row {row} has no chunk {chunk}.")
        return int(at[0]), int(at[-1]) + 1

    def token_ids(self, row: int, chunk: int) -> Tensor:
        """Return the ids of a chunk, [n], padding left out."""
        self.span(row, chunk)
        inside = self.chunks[row] == chunk
        return self.ids[row][inside.to(self._ids.device)].long()

    def ids_of_chunks(self, first: Tensor, counts: Tensor, width: int) -> Tensor:
        """Return the ids of the last chunks of each row, on the CPU.

        Args:
            first: Number of the first wanted chunk in its row, [B].
            counts: Chunks wanted of each row, [B].
            width: S - 1, the most tokens of a chunk.

        Returns:
            int32 [n, S - 1], row by row; `UNKNOWN` where tokens came as embeddings, and after the
            last token of a chunk.
        """
        found = torch.full((int(counts.sum()), width), UNKNOWN, dtype=torch.int32)
        at = 0
        for row, (start, count) in enumerate(zip(first.tolist(), counts.tolist(), strict=True)):
            if not count:
                continue
            # chunks are consecutive, so the wanted ones are near the end unless the log is short
            size = 2 * width * (count + 1)
            while size < self.num_tokens:
                numbers = self.chunks[row, -size:]
                if bool(((numbers >= 0) & (numbers < start)).any()):
                    break
                size *= 2
            numbers, ids = self.chunks[row, -size:], self.ids[row, -size:].cpu()
            inside = ((numbers >= start) & (numbers < start + count)).nonzero().flatten()
            chunk = numbers[inside].long() - start
            slot = torch.arange(len(inside)) - torch.searchsorted(chunk, chunk)
            found[at + chunk, slot] = ids[inside]
            at += count
        return found

    def select_rows(self, rows: Tensor) -> None:
        """Keep the given rows [B'] in their order; rows may repeat."""
        if self.num_tokens:
            self._ids = self._ids[rows.to(self._ids.device)]
            self._chunks = self._chunks[rows.to(self._chunks.device)]
        if self._last_generated is not None:
            self._last_generated = self._last_generated[rows.cpu()]

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        if not self.num_tokens:
            return {}
        return {
            "ids": self.ids,
            "chunks": self.chunks,
            "last_generated": self.last_generated,
        }

    def restore(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Restore what `tensors` returned, on `device`."""
        self._ids, self._chunks = tensors["ids"].to(device), tensors["chunks"]
        self.num_tokens = self._ids.shape[1]
        self._last_generated = tensors["last_generated"]

    def num_bytes(self) -> dict[str, int]:
        """Return bytes in use by place, {"device": …, "host": …}."""
        held = self.ids.numel() * self._ids.element_size()
        return {"device": held, "host": 0}


def _with_room(held: Tensor, rows: int, used: int, needed: int, device: torch.device) -> Tensor:
    if needed <= held.shape[1] and held.shape[0] == rows:
        return held
    with torch.inference_mode(False):  # so that later calls can write in any mode
        size = max(needed, 2 * held.shape[1], 64)
        grown = torch.full((rows, size), -1, dtype=torch.int32, device=device)
    if used:
        grown[:, :used] = held[:, :used]
    return grown
