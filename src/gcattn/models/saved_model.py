"""The files of a saved model, compared with their checksums before they are loaded."""

from pathlib import Path

from gcattn.storage.manifest import SMALL_BYTES, check_folder

# people edit these by hand; an edit hardly ever keeps the size, a flipped byte does
EDITED_BY_HAND = ("config.json", "generation_config.json", "tokenizer_config.json", "README.md")


def check_saved_model(folder: str | Path, *, hash_up_to: int | None = SMALL_BYTES) -> None:
    """Refuse a model in which a byte has changed; one without a manifest passes.

    Args:
        folder: What `gcattn train` saved.
        hash_up_to: Hash only files of at most this many bytes; None: all.

    Raises:
        DamagedFolderError: The first file that differs, by name.
    """
    check_folder(Path(folder), hash_up_to=hash_up_to, edited=EDITED_BY_HAND)
