"""The folder of a run: claimed before training starts, refused when it would be overwritten."""

import tempfile
from pathlib import Path
from typing import Any

import yaml

from gcattn.storage.removal import remove
from gcattn.storage.whole import new_file, remove_abandoned
from gcattn.train.checkpoints import UNFINISHED, list_checkpoints, remove_checkpoint
from gcattn.train.config import TrainConfig, load_config
from gcattn.train.records import TENSORBOARD_FOLDER
from gcattn.train.run_log import LOG_FILE

CONFIG_FILE = "config.yaml"
MODEL_FOLDER = "model"
# what must stay as it was, or a resumed run would be another run
FIXED = {
    "model": None,
    "data": None,
    "tasks": None,
    "curriculum": None,
    "training": ("batch_size", "gradient_accumulation", "seed", "optimizer", "fsdp"),
}


def claim_output(config: TrainConfig, *, resume: bool = False, overwrite: bool = False) -> None:
    """Write `config.yaml` into the folder of a run, which `sole_writer` holds.

    Args:
        config: The run; `config.output` is the folder.
        resume: Continue the run that is there.
        overwrite: Delete the run that is there.

    Raises:
        ValueError: The folder holds a run and neither is asked for, or the run cannot continue with
            this configuration.
        OSError: The folder cannot be written.
    """
    folder = Path(config.output)
    refuse_taken(folder, resume=resume, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    if _holds_run(folder):
        if resume:
            _check_same_run(folder, config)
        else:
            _delete_run(folder)
    # what a run that was killed while it saved left
    remove(folder / UNFINISHED)
    remove_abandoned(folder / MODEL_FOLDER)
    with new_file(folder / CONFIG_FILE) as file:
        yaml.safe_dump(config.as_dict(), file, sort_keys=False)


def refuse_taken(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds a run which nobody asked to continue with or to delete.

    Raises:
        ValueError: It does, or both were asked for.
    """
    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other.")
    if _holds_run(folder) and not (resume or overwrite):
        raise ValueError(
            f"{folder} already holds a run; add --resume to continue it, --overwrite to delete it, "
            "or choose another output."
        )


def _holds_run(folder: Path) -> bool:
    names = (CONFIG_FILE, LOG_FILE, MODEL_FOLDER)
    return any((folder / name).exists() for name in names) or bool(list_checkpoints(folder))


def _delete_run(folder: Path) -> None:
    for checkpoint in list_checkpoints(folder):
        remove_checkpoint(checkpoint)
    for name in (TENSORBOARD_FOLDER, MODEL_FOLDER, UNFINISHED, LOG_FILE, CONFIG_FILE):
        remove(folder / name)


def _check_same_run(folder: Path, config: TrainConfig) -> None:
    file = folder / CONFIG_FILE
    if not file.is_file():
        return
    try:
        before, now = load_config(file).as_dict(), config.as_dict()
    except ValueError as error:
        raise ValueError(
            f"What the run in {folder} was started with cannot be read: {error} "
            f"Put {file} right, or start a new run in another output."
        ) from error
    for section, keys in FIXED.items():
        old, new = before[section], now[section]
        if keys is not None:
            old, new = ({key: tree[key] for key in keys} for tree in (old, new))
        if old != new:
            raise ValueError(
                f"{_difference(section, old, new)}; a resumed run keeps it. "
                "Set it back, or start a new run in another output."
            )


def _difference(section: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                return f"{section}.{key} was {old.get(key)!r} and is now {new.get(key)!r}"
    return f"{section} was {old!r} and is now {new!r}"
