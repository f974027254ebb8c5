"""What `trust_remote_code=True` runs: a file beside the weights that says where the classes are.

Programs that never import gcattn, such as lm-evaluation-harness, load a model by `auto_map` in its
config.json. That names this file, which only imports gcattn.
"""

from os import PathLike
from pathlib import Path

FILE = "modeling_gcattn.py"
AUTO_MAP = {
    "AutoConfig": "modeling_gcattn.DRTConfig",
    "AutoModel": "modeling_gcattn.DRTModel",
    "AutoModelForCausalLM": "modeling_gcattn.DRTForCausalLM",
    "AutoModelForSequenceClassification": "modeling_gcattn.DRTForSequenceClassification",
}
_SOURCE = '''"""The classes of this model are those of the installed package gcattn."""

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
'''


def write_remote_code(folder: str | PathLike[str]) -> dict[str, str]:
    """Write the file into a folder and return the `auto_map` that names it."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / FILE).write_text(_SOURCE, encoding="utf-8")
    return dict(AUTO_MAP)
