"""Muon for the matrices inside the layers, AdamW for everything else, as one optimizer.

Muon makes an update's singular values equal, so directions with little gradient learn too. It is
made for maps between hidden states: embeddings, norms and convolutions stay with AdamW.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class BatchedMuon(torch.optim.Muon):
    """PyTorch's Muon with the matrices of one shape updated together.

    One at a time, each matrix takes some twenty small kernels: longer than a small model's step.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                self._update(group, shape, parameters)
        return loss

    def _update(self, group: dict[str, Any], shape: torch.Size, parameters: list[Tensor]) -> None:
        lr, momentum = float(group["lr"]), group["momentum"]
        grads: list[Any] = [parameter.grad for parameter in parameters]
        buffers = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            buffers.append(state["momentum_buffer"])
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        updates = torch._foreach_lerp(grads, buffers, momentum) if group["nesterov"] else buffers
        direction = orthogonalize(
            torch.stack(list(updates)), group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        directions = list(direction.to(parameters[0].dtype).unbind())
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        # updates have the size of AdamW's, so its learning rate holds for both
        torch._foreach_add_(parameters, directions, alpha=-lr * 0.2 * max(shape) ** 0.5)


def orthogonalize(
    matrices: Tensor, coefficients: tuple[float, float, float], num_steps: int, eps: float
) -> Tensor:
    """Bring the singular values near 1 by Newton-Schulz iteration: [N, P, Q].

    In bfloat16, which is enough; on a CPU in float32, where bfloat16 may take twenty times as long.
    """
    a, b, c = coefficients
    x = matrices.float() if matrices.device.type == "cpu" else matrices.bfloat16()
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=eps)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


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
        self.muon = BatchedMuon(
            list(matrices), lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
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
