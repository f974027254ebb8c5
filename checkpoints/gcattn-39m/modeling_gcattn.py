"""The classes of this model are those of the installed package gcattn."""

try:
    from gcattn.models import (
        DRTConfig,
        DRTForCausalLM,
        DRTForSequenceClassification,
        DRTModel,
    )
except ImportError as error:
    raise ImportError(
        "This model needs the package gcattn: run `pip install .` in a clone of its repository, "
        "or install its wheel."
    ) from error

__all__ = ["DRTConfig", "DRTForCausalLM", "DRTForSequenceClassification", "DRTModel"]
