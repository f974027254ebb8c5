"""A hash of a model: what its answers depend on."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Return a hash of the weights and the configuration."""
    fields = model.config.to_dict()
    # neither where a model lies nor who saved it changes an answer
    kept = {n: v for n, v in fields.items() if n[0] != "_" and n != "transformers_version"}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        plain = tensor.detach().cpu().contiguous().flatten()
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
