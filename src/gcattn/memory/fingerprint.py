"""A hash of the weights that make a memory, so that a model with other weights is refused.

These weights are the embeddings, the convolution, the lower decoder and the chunk encoder. The
upper decoder only reads, so it may be trained further. Weights are rounded to bfloat16 first: a
model that is loaded in float32 continues with what it wrote in bfloat16.
"""

import hashlib
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

PARTS = ("embed_tokens", "embed_landmark", "convolution", "lower_layers", "chunk_encoder")

_KNOWN: "WeakKeyDictionary[nn.Module, tuple[object, str]]" = WeakKeyDictionary()


def fingerprint(model: nn.Module) -> str:
    """Return the fingerprint of a model's weights, 64 hexadecimal digits.

    It is cached until a weight is replaced or written to.

    Args:
        model: A `DRTModel`, or a model that holds one as `model`.
    """
    model = base_of(model)
    weights = [
        (f"{part}.{name}", x)
        for part in PARTS
        if isinstance(module := getattr(model, part), nn.Module)
        for name, x in sorted(module.state_dict(keep_vars=True).items())
        if isinstance(x, Tensor)
    ]
    state = tuple((name, x.data_ptr(), _version(x)) for name, x in weights)
    known = _KNOWN.get(model)
    if known is not None and known[0] == state:
        return known[1]
    digest = hashlib.sha256()
    for name, x in weights:
        digest.update(f"{name} {list(x.shape)}\n".encode())
        rounded = x.detach().to(torch.bfloat16) if x.is_floating_point() else x.detach()
        digest.update(rounded.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    _KNOWN[model] = state, digest.hexdigest()
    return digest.hexdigest()


def check_fingerprint(made_by: str, model: nn.Module, what: str) -> None:
    """Refuse a model whose weights differ from those that made a memory.

    Args:
        made_by: Fingerprint of those weights.
        model: The model that wants to read it.
        what: Its name in the error, such as "The cache".

    Raises:
        ValueError: The fingerprints differ.
    """
    ours = fingerprint(model)
    if ours != made_by:
        raise ValueError(
            f"{what} was made by other weights (fingerprint {made_by[:12]}, this model has "
            f"{ours[:12]}): use the model that made it, or read the text again."
        )


def base_of(model: nn.Module) -> nn.Module:
    """Return the `DRTModel` inside a model with a head, or one wrapped by another library.

    Raises:
        TypeError: There is none.
    """
    inner: object = model
    while isinstance(inner, nn.Module):
        if all(hasattr(inner, part) for part in PARTS):
            return inner
        inner = getattr(inner, "model", None)
    raise TypeError(f"A memory is made and read by a gcattn model, got {type(model).__name__}.")


def _version(x: Tensor) -> int:
    return -1 if x.is_inference() else x._version
