"""The loss of an output layer: computed in slices if the layer is plain, by calling it if not.

Shapes: B batch, T tokens, E hidden size, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcattn.chunking import IGNORED
from gcattn.ops.linear_cross_entropy import linear_cross_entropy


def summed_loss(head: nn.Module, hidden: Tensor, targets: Tensor, logits: Tensor | None) -> Tensor:
    """Return the summed cross-entropy of the logits that `head` gives for hidden states [B, T, E].

    A plain linear layer need not be called: its weight times a slice of tokens at a time gives the
    same. An adapter, a quantised weight, or hooks that fetch it take part only in a call, which is
    the caller's: no compiled graph holds hooks, such as FSDP's.

    Args:
        head: The output layer.
        hidden: Its input, [B, T, E].
        targets: Ids to predict, [B, T]; -100 where there is no loss.
        logits: What `head` made of `hidden`, [B, T, V]; None: the layer is plain.
    """
    if logits is None:
        assert isinstance(head.weight, Tensor)
        return linear_cross_entropy(hidden.flatten(0, 1), head.weight, targets.flatten())
    wide = logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide, targets.flatten(), ignore_index=IGNORED, reduction="sum")


def is_plain_linear(head: nn.Module) -> bool:
    """Say whether `hidden @ head.weight.T` is all that calling the layer does."""
    return (
        type(head) is nn.Linear
        and head.bias is None
        and type(head.weight) in (nn.Parameter, Tensor)  # quantised and sharded ones are not
        and not head.weight.is_meta  # offloaded: hooks of accelerate bring it
        and "forward" not in vars(head)  # accelerate puts its own in front
        and not (head._forward_hooks or head._forward_pre_hooks)
        and not (head._backward_hooks or head._backward_pre_hooks)
    )
