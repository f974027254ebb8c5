"""RMSNorm that computes in float32 and returns the dtype that came in.

Shapes: E hidden size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """Divide by the root mean square and scale.

    Under autocast the stream is bfloat16 and the weight float32: torch's own norm would then return
    float32 and leave its fused kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each position by itself, [..., E] → [..., E]."""
        wide = torch.promote_types(x.dtype, torch.float32)
        normed = F.rms_norm(x.to(wide), self.normalized_shape, self.weight.to(wide), self.eps)
        return normed.to(x.dtype)
