"""SwiGLU feed-forward block.

Shapes: E hidden size.
"""

from torch import Tensor, nn

from gcattn.nn.projections import project
from gcattn.ops.pointwise import silu_times


class SwiGLU(nn.Module):
    """Gated feed-forward block: down(silu(gate(x)) · up(x))."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform each position by itself, [..., E] → [..., E]."""
        gate, up = project(hidden, self.gate_proj, self.up_proj)
        (out,) = project(silu_times(gate, up), self.down_proj)
        return out
