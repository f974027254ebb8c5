"""gcattn: language models that read millions of tokens by retrieving past chunks.

Public names load what they need when they are first used: `import gcattn` by itself costs nothing,
and yet transformers' Auto classes know the models from then on.
"""

import sys
from importlib import import_module
from typing import Any

from gcattn.auto_classes import register_lazily

__version__ = "0.1.0"

_HOME = {
    "DRTCache": "gcattn.memory.cache",
    "DRTConfig": "gcattn.models",
    "DRTForCausalLM": "gcattn.models",
    "DRTForSequenceClassification": "gcattn.models",
    "DRTModel": "gcattn.models",
    "MemoryWriter": "gcattn.memory.saved",
    "append_to_library": "gcattn.library.making",
    "build_library": "gcattn.library.making",
    "chunk_topk": "gcattn.ops",
    "delete_documents": "gcattn.memory.saved",
    "delete_from_library": "gcattn.library.deleting",
    "drt_12m": "gcattn.models",
    "drt_34m": "gcattn.models",
    "drt_128m": "gcattn.models",
    "drt_350m": "gcattn.models",
    "drt_tiny": "gcattn.models",
    "export_memory": "gcattn.memory.saved",
    "grouped_cross_attention": "gcattn.ops",
    "insert_landmarks": "gcattn.chunking",
    "load_cache": "gcattn.memory.persistence",
    "load_tokenizer": "gcattn.data",
    "open_memory": "gcattn.memory.saved",
    "merge_memories": "gcattn.memory.saved",
    "open_library": "gcattn.library.asking",
    "paper_128m": "gcattn.models",
    "read_ids": "gcattn.library.id_streams",
    "save_cache": "gcattn.memory.persistence",
    "sliding_window_attention": "gcattn.ops",
}

__all__ = sorted([*_HOME, "__version__"])

register_lazily(sys.modules[__name__])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'gcattn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
