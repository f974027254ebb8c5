"""Numbers and words that a model's modules and configuration hold: a graph has them built in."""

from typing import Any

from torch import nn

PLAIN = (bool, int, float, str, type(None))


class ModuleSettings:
    """The settings of a model as they were when something was captured of it.

    Args:
        model: Has a configuration.
    """

    def __init__(self, model: nn.Module) -> None:
        self._config = _public(vars(model.config))
        self._modules = [(vars(module), _plain(module)) for module in model.modules()]

    def are_those_of(self, model: nn.Module) -> bool:
        """Whether the model, which has the same modules, has the same settings."""
        same = all(settings.items() <= held.items() for held, settings in self._modules)
        return same and _public(vars(model.config)) == self._config


def _plain(module: nn.Module) -> dict[str, Any]:
    return {name: x for name, x in _public(vars(module)).items() if type(x) in PLAIN}


def _public(held: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in held.items() if not name.startswith("_")}
