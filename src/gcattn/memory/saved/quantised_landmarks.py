"""Landmarks in 8 bits on the model's device and exact ones in host memory: the same choice.

A score from a rounded landmark is off by at most |q| · |l - l'| (Cauchy and Schwarz), which bounds
the exact score from above. The chunks with the highest bounds are candidates and are scored
exactly. If the K-th exact score is above the bound of every other chunk, the K best are found;
otherwise more candidates are taken, in the end all chunks, so the choice is always the exact one.

Shapes: N chunks, n of a block, Q queries, K chosen chunks, M candidates, E hidden size.
"""

import torch
from torch import Tensor

from gcattn.ops.chunk_topk.running_best import BestChunks, nothing_yet, with_block

# landmarks whose bounds are computed at once: so few that they fit the caches of a CPU
CPU_BLOCK, DEVICE_BLOCK = 2**11, 2**16
# candidates for each chosen chunk at first
CANDIDATES = 4


class QuantisedLandmarks:
    """Landmarks that are scanned in 8 bits but chosen exactly.

    Args:
        exact: [N, E] in host memory.
        device: Where the model is.
        visible: Which chunks may be chosen, bool [N] beside the model; None: all.
    """

    def __init__(self, exact: Tensor, device: torch.device, visible: Tensor | None = None) -> None:
        self._exact, self._visible = exact, visible
        blocks = [_rounded(block) for block in exact.split(CPU_BLOCK)] or [_rounded(exact)]
        self._codes, self._scales, self._errors = (
            torch.cat(x).to(device) for x in zip(*blocks, strict=True)
        )

    @property
    def may_be_chosen(self) -> Tensor:
        """Which chunks may be chosen, bool [N]."""
        if self._visible is not None:
            return self._visible
        return torch.ones_like(self._scales, dtype=torch.bool)

    def seeing(self, visible: Tensor | None) -> "QuantisedLandmarks":
        """Return the same landmarks with another choice of visible chunks."""
        other = object.__new__(type(self))
        vars(other).update(vars(self) | {"_visible": visible})
        return other

    def num_bytes(self) -> dict[str, int]:
        """Bytes in use by place."""
        held = (self._codes, self._scales, self._errors)
        on_device = sum(x.numel() * x.element_size() for x in held)
        return {
            "device": on_device,
            "host": self._exact.numel() * self._exact.element_size(),
        }

    def best(self, queries: Tensor, top_k: int) -> BestChunks:
        """Return the K chunks with the best scores for each query [Q, E], and the scores [Q, K]."""
        wide = torch.promote_types(queries.dtype, torch.float32)
        count = max(CANDIDATES * top_k, top_k + 32)
        with torch.autocast(queries.device.type, enabled=False):
            asked = queries.to(wide)
            while True:
                numbers, others = self._candidates(asked, count)
                found = self._scored(asked, numbers, top_k)
                # no other chunk may be chosen or can be better
                is_proven = (others == -torch.inf) | (found.scores[:, -1] > others)
                if bool(is_proven.all()):
                    return found
                count *= 4

    def at(self, numbers: Tensor) -> Tensor:
        """Return the landmarks of chunks, [*numbers.shape, E]."""
        if not len(self._exact):
            return torch.zeros(
                *numbers.shape, self._exact.shape[1], dtype=self._exact.dtype, device=numbers.device
            )
        return self._exact[numbers.cpu()].to(numbers.device)

    def _candidates(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the chunks with the highest bounds, [Q, M], and the highest bound of all others.

        Chunks that may not be chosen have the number -1.
        """
        norms = queries.norm(dim=-1, keepdim=True)
        best = nothing_yet(queries, count + 1)
        size = CPU_BLOCK if self._codes.is_cpu else DEVICE_BLOCK
        for start in range(0, len(self._scales), size):
            block = slice(start, start + size)
            bounds = queries @ self._codes[block].to(queries.dtype).mT  # [Q, n]
            bounds.mul_(self._scales[block]).add_(norms * self._errors[block])
            if self._visible is not None:
                bounds.masked_fill_(~self._visible[block], -torch.inf)
            best = with_block(best, bounds, start)
        return best.indices[:, :count], best.scores[:, count] * queries.shape[-1] ** -0.5

    def _scored(self, queries: Tensor, numbers: Tensor, top_k: int) -> BestChunks:
        """Return the best of the chunks [Q, M] by exact score."""
        numbers = numbers.sort(dim=-1).values  # so that of two equal ones the earlier is first
        landmarks = self.at(numbers.clamp_min(0)).to(queries.dtype)
        scores = torch.einsum("qe,qme->qm", queries, landmarks) * queries.shape[-1] ** -0.5
        scores = scores.masked_fill(numbers < 0, -torch.inf)
        order = scores.argsort(dim=-1, descending=True, stable=True)[:, :top_k]
        scores, numbers = scores.gather(-1, order), numbers.gather(-1, order)
        return BestChunks(numbers.masked_fill(scores == -torch.inf, -1), scores)


def _rounded(landmarks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes [n, E], scales [n], and a bound on the rounding error of each landmark, [n]."""
    wide = landmarks.to(torch.promote_types(landmarks.dtype, torch.float32))
    if not len(wide):
        nothing = wide.new_zeros(0)
        return wide.to(torch.int8), nothing, nothing
    scales = wide.abs().amax(dim=-1, keepdim=True) / 127
    codes = (wide / torch.where(scales > 0, scales, 1)).round().clamp(-127, 127)
    moved = (wide - codes * scales).norm(dim=-1)
    # sums of E products are rounded too, in the bound and in the exact score
    rounding = 4 * wide.shape[1] * torch.finfo(torch.float32).eps * wide.norm(dim=-1)
    return codes.to(torch.int8), scales.squeeze(-1), moved * (1 + 1e-5) + rounding
