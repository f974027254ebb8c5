"""`library.json`: how a memory of files was built, and what is still to be read.

    {
     "version": 1,
     "model": "checkpoints/gcattn-12m",
     "tokenizer": "60303a…",
     "settings": {"block_tokens": 32768, …},
     "run": 1,
     "first_document": 0,
     "unfinished": ["papers"]
    }

It lies beside `memory.json`. The contents of the memory do not depend on it: it names the model
that answers by default, and lets a killed build or append continue where it stopped.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from gcattn.storage.manifest import DamagedFolderError
from gcattn.storage.whole import new_file

DTYPES = ("bfloat16", "float16", "float32", "float64")
STATE_FILE, VERSION = "library.json", 1


@dataclass(frozen=True)
class BuildSettings:
    """How a library is divided; fixed for all later appends.

    Attributes:
        block_tokens: Tokens that the model reads at once, and the least that a resumed build reads
            again.
        part_bytes: Bytes after which a part of the memory is written.
        dtype: Of what is kept: "bfloat16", "float16", "float32" or "float64".
        keys_values: Whether keys and values are kept; without them chunks are recomputed from their
            token ids whenever they are retrieved, at about a hundredth of the bytes.
    """

    block_tokens: int
    part_bytes: int
    dtype: str
    keys_values: bool = True

    def __post_init__(self) -> None:
        for name in ("block_tokens", "part_bytes"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}.")


@dataclass(frozen=True)
class LibraryState:
    """The contents of `library.json`.

    Attributes:
        model: Folder or hub name of the model that made the memory.
        tokenizer: Fingerprint of its tokenizer.
        settings: How the library is divided.
        run: Number of the last build or append, counted from 1.
        first_document: Number of documents when it began.
        unfinished: Its sources until it is finished; then None.
    """

    model: str
    tokenizer: str
    settings: BuildSettings
    run: int = 0
    first_document: int = 0
    unfinished: tuple[str, ...] | None = None

    def begun(self, sources: tuple[str, ...], first_document: int) -> Self:
        """Return the state during another run, which reads `sources`."""
        return replace(self, run=self.run + 1, first_document=first_document, unfinished=sources)

    def finished(self) -> Self:
        """Return the state after the run."""
        return replace(self, unfinished=None)

    def write(self, folder: Path) -> None:
        """Replace the file atomically."""
        with new_file(folder / STATE_FILE) as stream:
            json.dump({"version": VERSION} | asdict(self), stream, indent=1)


def read_state(folder: Path) -> LibraryState | None:
    """Read `library.json`; None where there is none.

    Raises:
        DamagedFolderError: It is not as we write it, or of another version.
    """
    file = folder / STATE_FILE
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = content.pop("version")
        if version != VERSION:
            raise DamagedFolderError(
                f"{file} has version {version!r}, this gcattn reads {VERSION}: update gcattn."
            )
        return _state(content)
    except FileNotFoundError:
        return None
    except DamagedFolderError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise DamagedFolderError(f"{file} is damaged: it is not as we write it.") from error


def read_finished_state(folder: Path) -> LibraryState | None:
    """Read `library.json` of a finished memory; None where there is none.

    Raises:
        DamagedFolderError: It is not as we write it, or of another version.
        ValueError: The last run is not finished.
    """
    state = read_state(folder)
    if state is not None and state.unfinished is not None:
        raise ValueError(
            f"Reading {' '.join(state.unfinished)} into {folder} is not finished; finish it first."
        )
    return state


def _state(content: dict[str, Any]) -> LibraryState:
    if content.keys() != {field.name for field in fields(LibraryState)}:
        raise ValueError("A field is missing or unknown.")
    unfinished = content["unfinished"]
    state = LibraryState(
        content["model"],
        content["tokenizer"],
        BuildSettings(**content["settings"]),
        content["run"],
        content["first_document"],
        None if unfinished is None else tuple(unfinished),
    )
    texts = (state.model, state.tokenizer, *(state.unfinished or ()))
    numbers = (state.run, state.first_document)
    if not all(type(x) is str for x in texts) or not all(type(n) is int for n in numbers):
        raise ValueError("A field has the wrong type.")
    return state
