"""The kernel of linear maps: of columns and weights, or of queries and landmarks.

Shapes: M rows, n input size, N output size of a map.
"""

from collections.abc import Sequence

from torch import Tensor

from gcattn.ops.native.calls import Number, run_kernel

# limits of `kernels.c`
MAX_MAPS, MAX_INPUT = 3, 65536


def run_maps(
    x: Tensor,
    weights: Sequence[Tensor],
    outputs: Sequence[Tensor],
    num_threads: int,
    *,
    scale: float | None = None,
) -> None:
    """Multiply x [..., n] by each weight [..., N, n] into its output [..., N].

    Args:
        x: At most `MAX_INPUT` numbers, contiguous as all tensors here.
        weights: At most `MAX_MAPS`, in the dtype of `x`.
        outputs: In the same dtype; with a scale there is one, in float32.
        num_threads: At most so many share the work.
        scale: Factor on what is then not rounded.
    """
    maps = list[Tensor | Number | None]()
    for weight, out in zip(weights, outputs, strict=True):
        maps += [weight, out if scale is None else None, weight.shape[-2]]
    maps += [None, None, 0] * (MAX_MAPS - len(weights))
    scores = None if scale is None else outputs[0]
    sizes = x.numel() // x.shape[-1], x.shape[-1], num_threads
    run_kernel(
        "project", x.dtype, [x, *maps, scores, *sizes, 1.0 if scale is None else scale], outputs
    )
