"""Rewrite a model that was saved when the landmark was still an id of its vocabulary.

`python -m gcattn.models.landmark_migration FOLDER NEW_FOLDER`: the landmark's row is taken out of
the embedding table and the head, and becomes the separate embedding that models have today. Every
other number stays as it is, so the logits of text do not change. The tokenizer loses the token
`<|landmark|>`, which never stood for text.

Shapes: V vocabulary, E hidden size.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from gcattn.storage.manifest import MANIFEST
from gcattn.storage.whole import new_folder as new_folder_of

LANDMARK = "<|landmark|>"
_FIELD = "landmark_token_id"
_INDEX = "model.safetensors.index.json"


def migrate_checkpoint(folder: Path, new_folder: Path) -> None:
    """Write the model in `folder` to `new_folder` as this version saves it.

    Raises:
        FileNotFoundError: There is no saved model.
        FileExistsError: `new_folder` is there already.
        ValueError: The model is up to date, or its landmark is not the last id.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no saved model (it has no config.json).")
    if new_folder.exists():
        raise FileExistsError(f"{new_folder} exists already; choose another name or remove it.")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if _FIELD not in config:
        raise ValueError(f"{folder} is up to date: its config.json has no {_FIELD}.")
    landmark, vocab_size = config.pop(_FIELD), config["vocab_size"]
    if landmark != vocab_size - 1:
        raise ValueError(
            f"The landmark of {folder} is id {landmark}; only the last one, {vocab_size - 1}, can "
            "leave the vocabulary, since the ids after it must keep their numbers."
        )
    config["vocab_size"] = landmark
    with new_folder_of(new_folder) as unfinished:
        _migrate_files(folder, unfinished, config, landmark)


def _migrate_files(folder: Path, unfinished: Path, config: dict[str, Any], landmark: int) -> None:
    """Copy a model and rewrite what knows the landmark as an id."""
    shutil.copytree(folder, unfinished, dirs_exist_ok=True)
    (unfinished / MANIFEST).unlink(missing_ok=True)  # of the files as they were
    _write_json(unfinished / "config.json", config)
    places: dict[str, str] = {}
    for file in sorted(unfinished.glob("*.safetensors")):
        places |= dict.fromkeys(_migrate_weights(file, landmark), file.name)
    if (unfinished / _INDEX).is_file():
        index = json.loads((unfinished / _INDEX).read_text(encoding="utf-8"))
        _write_json(unfinished / _INDEX, index | {"weight_map": dict(sorted(places.items()))})
    if (unfinished / "tokenizer.json").is_file():
        _drop_landmark(unfinished)


def _migrate_weights(file: Path, landmark: int) -> list[str]:
    """Give the landmark's row of the table a tensor of its own; return the names in the file."""
    with safe_open(file, framework="pt") as stored:
        metadata = stored.metadata()
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    new: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith("embed_tokens.weight"):
            new[name] = tensor[:landmark].contiguous()
            own = name.replace("embed_tokens", "embed_landmark")
            new[own] = tensor[landmark:].contiguous()  # [1, E]
        elif name == "lm_head.weight":
            new[name] = tensor[:landmark].contiguous()
        else:
            new[name] = tensor
    save_file(new, file, metadata)
    return list(new)


def _drop_landmark(folder: Path) -> None:
    """Take the landmark out of the files of a tokenizer, if it is there."""
    path = folder / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    state = json.loads(text)
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] != LANDMARK]
    state["model"]["vocab"].pop(LANDMARK, None)
    indent = 2 if text.startswith("{\n") else None
    end = "\n" if text.endswith("\n") else ""
    path.write_text(json.dumps(state, ensure_ascii=False, indent=indent) + end, encoding="utf-8")
    path = folder / "tokenizer_config.json"
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        for name in ("additional_special_tokens", "extra_special_tokens"):
            if LANDMARK in config.get(name, []):
                config[name].remove(LANDMARK)
                if not config[name]:
                    del config[name]
        _write_json(path, config)


def _write_json(path: Path, state: dict[str, Any]) -> None:
    path.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the arguments and rewrite the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a model that asks for it when it is loaded")
    parser.add_argument("new_folder", type=Path, help="where to write it")
    arguments = parser.parse_args()
    try:
        migrate_checkpoint(arguments.folder, arguments.new_folder)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
