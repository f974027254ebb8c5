"""Muon for the matrices inside the layers, AdamW for everything else, as one optimizer.

Muon makes an update's singular values equal, so directions with little gradient learn too. It is
made for maps between hidden states: embeddings, norms and convolutions stay with AdamW.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# updates have the size of AdamW's, so its learning rate holds for both
_ADJUST = "match_rms_adamw"


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers that step together; their groups are those of the whole.

    Args:
        matrices: Parameters for Muon, two dimensions each.
        groups: Parameter groups for AdamW.
        lr: Learning rate of both.
        betas: Of AdamW.
        weight_decay: Of the matrices.
        fused: Of AdamW.

    Raises:
        ValueError: A parameter for Muon has not two dimensions.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        fused: bool,
    ) -> None:
        self.muon = torch.optim.Muon(
            list(matrices), lr=lr, weight_decay=weight_decay, adjust_lr_fn=_ADJUST
        )
        self.adamw = torch.optim.AdamW(list(groups), lr=lr, betas=betas, fused=fused)
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})
        self._share_groups()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step with both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._share_groups()

    def _share_groups(self) -> None:
        # schedulers set the learning rate in these
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]


def split_parameters(
    model: nn.Module,
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Return matrices inside layers, other parameters of two or more dimensions, and vectors."""
    inside = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    outside = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    inside -= outside  # a tied output layer is the embedding
    parameters = list(model.parameters())
    matrices = [p for p in parameters if id(p) in inside]
    others = [p for p in parameters if id(p) not in inside and p.dim() >= 2]
    return matrices, others, [p for p in parameters if p.dim() < 2]
