"""Output layer and cross-entropy in one step, without the logits of all tokens in memory.

At a vocabulary of 16,384 the logits of 128K tokens are 4 GiB in bfloat16, and a softmax in float32
makes it 12. Here a slice of tokens at a time goes through the output layer, the loss and the
gradient of both; what stays is one gradient per token and one of the table. Libraries that do the
same read the number of labels back to the host in every step, which a step must not.

Shapes: n tokens, E hidden size, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# the target of a token that has no loss, PyTorch's own
IGNORED = -100
# tokens per slice: their logits take 128 MiB in bfloat16 at V = 16,384
SLICE = 4096
# Tensor Cores want rows of 16 bytes: a table of an odd number of ids is filled up to a multiple
ALIGNMENT = 8


def linear_cross_entropy(hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Return the summed loss of predicting `targets` from `hidden @ table.T`.

    Args:
        hidden: Hidden states, [n, E].
        table: Output layer, [V, E]; under autocast both are brought to its dtype.
        targets: Ids to predict, [n]; -100 where there is no loss.

    Returns:
        The sum of the losses in nats, float32 (float64 for float64 inputs).

    Raises:
        ValueError: The shapes do not fit, or a target is no id. Off the CPU, where looking would
            mean waiting, the loss is NaN in place of the second.
    """
    if hidden.dim() != 2 or table.dim() != 2 or hidden.shape[1] != table.shape[1]:
        raise ValueError(
            "hidden [n, E] and table [V, E] must agree in E, "
            f"got {list(hidden.shape)} and {list(table.shape)}."
        )
    if targets.shape != hidden.shape[:1]:
        raise ValueError(f"targets must have shape [{hidden.shape[0]}], got {list(targets.shape)}.")
    if hidden.is_cpu and not torch.compiler.is_compiling():
        # how many labels there are is known here without waiting: what has none costs nothing
        kept = (targets != IGNORED).nonzero().squeeze(1)
        hidden, targets = hidden[kept], targets[kept]
        outside = targets[(targets < 0) | (targets >= table.shape[0])]
        if outside.numel():
            raise ValueError(
                f"targets must be -100 or ids 0 … {table.shape[0] - 1}, got {int(outside[0])}."
            )
    device_type = hidden.device.type
    dtype = hidden.dtype
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
    num_ids = table.shape[0]
    with torch.autocast(device_type, enabled=False):
        hidden, table = hidden.to(dtype), table.to(dtype)
        if num_ids % ALIGNMENT:
            table = F.pad(table, (0, 0, 0, -num_ids % ALIGNMENT))
        if torch.is_grad_enabled() and (hidden.requires_grad or table.requires_grad):
            total: Tensor = _LinearCrossEntropy.apply(hidden, table, targets, num_ids)
            return total
        slices = zip(hidden.split(SLICE), targets.split(SLICE), strict=True)
        losses = [_loss_and_logits(h, table, t, num_ids)[0] for h, t in slices]
        wide = torch.promote_types(dtype, torch.float32)
        return torch.stack([torch.zeros((), dtype=wide, device=hidden.device), *losses]).sum()


class _LinearCrossEntropy(torch.autograd.Function):
    """The loss is a number, so its gradients are found on the way forward and scaled later."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor, num_ids: int) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        dhidden = torch.empty_like(hidden)
        dtable = torch.zeros(table.shape, dtype=wide, device=table.device)
        for start in range(0, hidden.shape[0], SLICE):
            part = hidden[start : start + SLICE]
            labels = targets[start : start + SLICE]
            loss, logits, lse = _loss_and_logits(part, table, labels, num_ids)
            total = total + loss
            # a comparison fuses with what follows; F.one_hot would check its input on the host
            wanted = labels.unsqueeze(1) == torch.arange(table.shape[0], device=table.device)
            dlogits = (logits - lse).exp() - wanted.to(wide)
            dlogits = (dlogits * (labels != IGNORED).unsqueeze(1)).to(hidden.dtype)
            dhidden[start : start + SLICE] = dlogits @ table
            dtable += dlogits.T @ part
        ctx.save_for_backward(dhidden, dtable.to(table.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, dtotal: Tensor) -> tuple[Tensor, Tensor, None, None]:
        dhidden, dtable = ctx.saved_tensors
        return dhidden * dtotal.to(dhidden.dtype), dtable * dtotal.to(dtable.dtype), None, None


def _loss_and_logits(
    hidden: Tensor, table: Tensor, targets: Tensor, num_ids: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a slice's summed loss, its logits [n, V] and their log-sum-exp [n, 1]."""
    logits = (hidden @ table.T).to(torch.promote_types(hidden.dtype, torch.float32))
    if logits.shape[1] > num_ids:
        filling = torch.arange(logits.shape[1], device=logits.device) >= num_ids
        logits = logits.masked_fill(filling, -torch.inf)
    lse = logits.logsumexp(-1, keepdim=True)
    losses = (lse - logits.gather(1, targets.clamp(0, num_ids - 1).unsqueeze(1))).squeeze(1)
    is_id = (targets >= 0) & (targets < num_ids)
    losses = torch.where(is_id, losses, torch.where(targets == IGNORED, 0.0, torch.nan))
    return losses.sum(), logits, lse
