"""The models; importing `gcattn` registers them with transformers' Auto classes."""

from gcattn.models.causal_lm import DRTForCausalLM
from gcattn.models.configuration_drt import DRTConfig
from gcattn.models.early_plan import plan_ahead
from gcattn.models.modeling_drt import DRTModel
from gcattn.models.presets import (
    PRESETS,
    drt_12m,
    drt_34m,
    drt_128m,
    drt_350m,
    drt_tiny,
    paper_128m,
)
from gcattn.models.pretrained import DRTPreTrainedModel
from gcattn.models.sequence_classification import DRTForSequenceClassification

__all__ = [
    "PRESETS",
    "DRTConfig",
    "DRTForCausalLM",
    "DRTForSequenceClassification",
    "DRTModel",
    "DRTPreTrainedModel",
    "drt_12m",
    "drt_34m",
    "drt_128m",
    "drt_350m",
    "drt_tiny",
    "paper_128m",
    "plan_ahead",
]
