"""Arguments that transformers passes to every model and that only ask for the default."""

from typing import Any

from transformers.modeling_outputs import ModelOutput

from gcattn.models.configuration_drt import DRTConfig

# positions in a cache follow from the cache; a harness counts tokens for itself
_IGNORED = frozenset({"cache_position", "use_cache", "num_items_in_batch", "position_ids"})


def check_defaults(kwargs: dict[str, Any], model_name: str) -> None:
    """Refuse arguments that a model would have to ignore, None and False excepted.

    Raises:
        ValueError: One asks for something, or is unknown.
    """
    if kwargs.get("output_attentions"):
        raise ValueError("output_attentions is not available; use output_retrieval=True.")
    known = _IGNORED | {"output_attentions"}
    if unknown := [name for name in kwargs if name not in known]:
        raise ValueError(f"Unexpected arguments {unknown}; see {model_name}.forward.")


def in_wanted_form(output: Any, return_dict: bool | None, config: DRTConfig) -> Any:
    """Return a model's output, or its values as a tuple where that is asked for."""
    wanted = config.return_dict if return_dict is None else return_dict
    return output if wanted or not isinstance(output, ModelOutput) else output.to_tuple()
