"""Plans that are made before the model sees the rows.

Shapes: B batch, T tokens.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gcattn.memory.stream import Stream
from gcattn.models.call_plan import CallPlan, plan_call

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


def plan_ahead(
    config: "DRTConfig",
    shape: tuple[int, int],
    *,
    chunk_breaks: Tensor | None = None,
    document_ids: Tensor | None = None,
) -> CallPlan:
    """Lay out whole rows before the model sees them, for example in the data loader's processes.

    A model on a GPU that plans its own call has to wait until breaks and documents have been copied
    from the device, and the device waits for the plan.

    Args:
        config: The model's configuration.
        shape: (B, T) of the rows, none of which has padding.
        chunk_breaks: True where the chunk closes after this token, bool [B, T].
        document_ids: Document of each token, [B, T].

    Returns:
        What `forward(plan=…)` takes in place of the breaks, once it is on the model's device: `to`
        and `pin_memory` are those of a tensor.

    Raises:
        ValueError: A shape does not fit.
    """
    return plan_call(
        config,
        shape,
        torch.device("cpu"),
        Stream(config),
        attention_mask=None,
        chunk_breaks=chunk_breaks,
        document_ids=document_ids,
        num_logits=None,
    )


def check_plan(
    plan: CallPlan,
    shape: tuple[int, int],
    device: torch.device,
    stream: Stream,
    attention_mask: Tensor | None,
    chunk_breaks: Tensor | None,
) -> None:
    """Check that a plan made ahead fits a call.

    Raises:
        ValueError: It does not fit, or the call passes what the plan already holds.
    """
    if attention_mask is not None or chunk_breaks is not None:
        raise ValueError(
            "A plan made ahead is for rows without padding and holds their breaks: pass neither "
            "attention_mask nor chunk_breaks beside it."
        )
    if stream.remembers:
        raise ValueError("A plan made ahead is for calls without a cache: pass use_cache=False.")
    if plan.chunk_of_token.shape != shape:
        planned = list(plan.chunk_of_token.shape)
        raise ValueError(f"The plan is for tokens {planned}, the call has {list(shape)}.")
    if plan.layout.positions.device != device:
        raise ValueError(
            f"The plan is on {plan.layout.positions.device}, the model on {device}: pass "
            "plan.to(device)."
        )
