"""RMSNorm that computes in float32 and returns the dtype that came in.

Shapes: E hidden size.
"""

import torch
from torch import Tensor, nn

from gcattn.nn.plain_calls import is_called_plainly
from gcattn.ops.pointwise import add_rms_norm, rms_norm


class RMSNorm(nn.RMSNorm):
    """Divide by the root mean square and scale.

    Under autocast the stream is bfloat16 and the weight float32: torch's own norm would then return
    float32 and leave its fused kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each position by itself, [..., E] → [..., E]."""
        return rms_norm(x, self.weight, self.eps)


def add_and_norm(x: Tensor, added: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return x + added, [..., E], and the norm of that: one kernel where no gradient is wanted.

    A norm that is more than an `RMSNorm`, or has hooks, is called.
    """
    # torch.compile cannot look at hooks, and fuses what it can itself
    is_compiling = torch.compiler.is_compiling()
    if not is_compiling and type(norm) is RMSNorm and is_called_plainly(norm):
        return add_rms_norm(x, added, norm.weight, norm.eps)
    total = x + added
    return total, norm(total)
