"""The models, registered with transformers' Auto classes when this package is imported."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from gcattn.models.causal_lm import DRTForCausalLM
from gcattn.models.configuration_drt import DRTConfig
from gcattn.models.modeling_drt import DRTModel, DRTPreTrainedModel
from gcattn.models.presets import (
    PRESETS,
    drt_12m,
    drt_34m,
    drt_128m,
    drt_350m,
    drt_tiny,
    paper_128m,
)

AutoConfig.register(DRTConfig.model_type, DRTConfig, exist_ok=True)
AutoModel.register(DRTConfig, DRTModel, exist_ok=True)
AutoModelForCausalLM.register(DRTConfig, DRTForCausalLM, exist_ok=True)

__all__ = [
    "PRESETS",
    "DRTConfig",
    "DRTForCausalLM",
    "DRTModel",
    "DRTPreTrainedModel",
    "drt_12m",
    "drt_34m",
    "drt_128m",
    "drt_350m",
    "drt_tiny",
    "paper_128m",
]
