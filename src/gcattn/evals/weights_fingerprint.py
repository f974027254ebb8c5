"""A hash of a model: what its answers depend on."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Return a hash of weights and configuration."""
    fields = model.config.to_dict()
    # neither the path of a model nor the version that saved it changes an answer
    kept = {n: v for n, v in fields.items() if n[0] != "_" and n != "transformers_version"}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        plain = tensor.detach().cpu().contiguous().flatten()
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
