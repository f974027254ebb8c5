"""Memories of files from Python: `build_library` makes one, `append_to_library` adds to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcattn.library.building import read_into
from gcattn.library.state import DTYPES, BuildSettings, LibraryState, read_state
from gcattn.storage.home import expand_home

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# a CPU reads them in seconds, a GPU in a tenth of a second
BLOCK_TOKENS = {"cpu": 2**15, "cuda": 2**18}
# a killed build reads again what the unfinished part held
PART_BYTES = {"cpu": 2**26, "cuda": 2**28}


def build_library(
    sources: str | Path | Iterable[str | Path],
    folder: str | Path,
    *,
    model: str,
    device: str = "auto",
    dtype: str = "auto",
    settings: Callable[[Any], BuildSettings] | None = None,
    num_workers: int = 0,
    **reports: Any,
) -> None:
    """Read files into a new memory; after a kill, the same call continues.

    Args:
        sources: Files and folders.
        folder: Folder of the memory; created by this call.
        model: Folder or hub name of the model.
        device: "cpu", "cuda", or "auto".
        dtype: Number format of the weights; "auto": as saved, on a CPU float32 where 16 bits are
            slow.
        settings: Returns how to divide the library, given the model; by default `default_settings`.
        num_workers: Processes that tokenize ahead; a script that asks for some needs
            `if __name__ == "__main__":`.
        **reports: `on_progress` and `on_problem`, as in `read_into`.

    Raises:
        FileExistsError: There is a finished memory, or something else.
        FileNotFoundError: A source or the model does not exist.
        ValueError: A file that was named cannot be read, or the model retrieves nothing.
    """
    loaded, tokenizer, fingerprint = _loaded(model, device, dtype)
    begin = LibraryState(_lasting(model), fingerprint, (settings or default_settings)(loaded))
    state = tokenizer.backend_tokenizer.to_str()
    read_into(
        expand_home(folder),
        _names(sources),
        loaded,
        state,
        begin=begin,
        num_workers=num_workers,
        **reports,
    )


def default_settings(model: Any, *, keys_values: bool = True) -> BuildSettings:
    """Return how a library is divided for a model on its device."""
    kind = "cpu" if model.device.type == "cpu" else "cuda"
    # running in a wider dtype than the model was saved in adds no information
    dtype = str(model.config.dtype or model.dtype).removeprefix("torch.")
    dtype = dtype if dtype in DTYPES else "float32"
    return BuildSettings(BLOCK_TOKENS[kind], PART_BYTES[kind], dtype, keys_values)


def append_to_library(
    sources: str | Path | Iterable[str | Path],
    folder: str | Path,
    *,
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    num_workers: int = 0,
    **reports: Any,
) -> None:
    """Read more files into a memory; takes the arguments and raises the errors of `build_library`.

    What it holds is neither read nor written again.
    """
    folder = expand_home(folder)
    state = read_state(folder)
    if state is None:
        raise FileNotFoundError(
            f"{folder} holds no memory of files; gcattn memory build makes one."
        )
    loaded, tokenizer, fingerprint = _loaded(model or state.model, device, dtype)
    if fingerprint != state.tokenizer:
        raise ValueError(
            f"The tokenizer of {model or state.model} is not the one that {folder} was read with."
        )
    read_into(
        folder,
        _names(sources),
        loaded,
        tokenizer.backend_tokenizer.to_str(),
        begin=None,
        num_workers=num_workers,
        **reports,
    )


def _loaded(source: str, device: str, dtype: str) -> tuple[Any, PreTrainedTokenizerFast, str]:
    from gcattn.data.tokenizer_fingerprint import tokenizer_fingerprint
    from gcattn.data.tokenizer_loading import load_tokenizer
    from gcattn.evals.model_loading import load_causal_lm
    from gcattn.models import DRTConfig

    model = load_causal_lm(source, device=device, dtype=dtype)
    if not isinstance(model.config, DRTConfig) or model.config.retrieval_method == "none":
        raise ValueError(f"{source} is not a model that retrieves: it cannot make a memory.")
    tokenizer = load_tokenizer(source)
    return model, tokenizer, tokenizer_fingerprint(tokenizer)


def _lasting(model: str) -> str:
    """Return a name of the model that works from any folder."""
    return str(Path(model).resolve()) if Path(model).exists() else model


def _names(sources: str | Path | Iterable[str | Path]) -> tuple[str, ...]:
    if isinstance(sources, str | Path):
        sources = [sources]
    names = tuple(str(source) for source in sources)
    if not names:
        raise ValueError("Name at least one file or folder to read.")
    return names
