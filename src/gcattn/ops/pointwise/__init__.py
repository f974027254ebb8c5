"""What is done between matrix products, in one launch each where no gradient is wanted.

Every operation has its lines in PyTorch. They run where there is no GPU, where a gradient is wanted
and under `torch.compile`, which fuses them itself. Elsewhere a kernel does the same in one launch
and rounds at the same places: reading a few columns is mostly launches.
"""

from gcattn.ops.pointwise.angles import rotary_angles
from gcattn.ops.pointwise.columns import write_columns
from gcattn.ops.pointwise.convolution import mix_columns
from gcattn.ops.pointwise.gate import silu_times
from gcattn.ops.pointwise.norm import add_rms_norm, rms_norm
from gcattn.ops.pointwise.rotary import Rotation, rotate
from gcattn.ops.pointwise.sum import add
from gcattn.ops.pointwise.taking import take_entries
from gcattn.ops.pointwise.windows import extend_columns

__all__ = [
    "Rotation",
    "add",
    "add_rms_norm",
    "extend_columns",
    "mix_columns",
    "rms_norm",
    "rotary_angles",
    "rotate",
    "silu_times",
    "take_entries",
    "write_columns",
]
