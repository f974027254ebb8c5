"""Compile a model by layer: one graph for each kind of layer, however many layers there are.

A graph of the whole model takes minutes to make, since it repeats every layer. Layers of a kind run
the same code on tensors of the same shapes, so the first one's graph serves them all. What lies
between the layers (chunking, retrieval) is little work and stays as it is.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gcattn.nn.chunk_encoder import EncoderLayer
from gcattn.nn.decoder_layer import DecoderLayer, RetrievalDecoderLayer

if TYPE_CHECKING:
    from gcattn.models import DRTForCausalLM

# graphs of one kind of layer: with and without gradients, fixed and changing shapes, few layouts
MOST_GRAPHS = 32


def compile_layers(model: "DRTForCausalLM", **options: Any) -> None:
    """Let the layers and the loss of a model run as compiled graphs, each of a single piece.

    Call it before the model is wrapped for several devices: what the wrappers do before and after a
    layer stays outside of its graph, and so does gradient checkpointing. Parameters keep their
    names. The first shapes that a kind of layer meets are compiled as they are; when they change,
    one more graph for changing shapes follows. With `dynamic=True` that one is made at once.

    Args:
        model: Changed in place.
        options: Passed on to `torch.compile`.
    """
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, MOST_GRAPHS)
    for module in model.modules():
        if isinstance(module, DecoderLayer | RetrievalDecoderLayer):
            _compile(module, "compute", options)
        elif isinstance(module, EncoderLayer):
            _compile(module, "forward", options)
    _compile(model, "_summed_loss", options)


def _compile(module: nn.Module, method: str, options: dict[str, Any]) -> None:
    compiled = torch.compile(getattr(module, method), fullgraph=True, **options)
    # a plain attribute of this one object, so that the class and other models stay as they are
    object.__setattr__(module, method, compiled)
