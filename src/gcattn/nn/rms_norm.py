"""RMSNorm that computes in float32 and returns the dtype that came in.

Shapes: E hidden size.
"""

from torch import Tensor, nn

from gcattn.ops.pointwise import rms_norm


class RMSNorm(nn.RMSNorm):
    """Divide by the root mean square and scale.

    Under autocast the stream is bfloat16 and the weight float32: torch's own norm would then return
    float32 and leave its fused kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each position by itself, [..., E] → [..., E]."""
        return rms_norm(x, self.weight, self.eps)
