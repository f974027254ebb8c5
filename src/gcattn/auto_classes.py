"""Make transformers' Auto classes know DRTs as soon as `gcattn` is imported, and load nothing.

Auto classes keep the names of classes and import a model's package when it is asked for. A DRT's
entry points at `gcattn`, whose names load what they need when they are used. Where transformers is
not imported yet, the entries wait for it.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODEL_TYPE = "drt"
CONFIG = "DRTConfig"
MODELS = {
    "MODEL_MAPPING": "DRTModel",
    "MODEL_FOR_CAUSAL_LM_MAPPING": "DRTForCausalLM",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING": "DRTForSequenceClassification",
}
_AUTO = "transformers.models.auto"


def register_lazily(package: ModuleType) -> None:
    """Register DRTs with the Auto classes, now or when transformers defines them."""
    known = {
        f"{_AUTO}.configuration_auto": lambda module: _add_config(module, package),
        f"{_AUTO}.modeling_auto": lambda module: _add_models(module, package),
    }
    waiting = {name: add for name, add in known.items() if name not in sys.modules}
    if waiting:
        sys.meta_path.insert(0, _AfterImport(waiting))
    for name in known.keys() - waiting.keys():
        known[name](sys.modules[name])


def _add_config(module: Any, package: ModuleType) -> None:
    module.CONFIG_MAPPING._mapping[MODEL_TYPE] = CONFIG
    module.CONFIG_MAPPING._modules[MODEL_TYPE] = package


def _add_models(module: Any, package: ModuleType) -> None:
    for name, model_class in MODELS.items():
        mapping = getattr(module, name)
        mapping._reverse_config_mapping[CONFIG] = MODEL_TYPE
        mapping._model_mapping[MODEL_TYPE] = model_class
        mapping._modules[MODEL_TYPE] = package


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function with each of some modules when it has been imported."""

    def __init__(self, waiting: dict[str, Callable[[ModuleType], None]]) -> None:
        self._waiting = waiting

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        then = self._waiting.pop(fullname, None)
        if then is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_then(module: ModuleType) -> None:
                execute(module)
                then(module)

            spec.loader.exec_module = execute_then  # type: ignore[method-assign]
        return spec
