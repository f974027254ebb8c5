"""`gcattn verify`: is a folder still what was written into it?"""

from pathlib import Path
from typing import Annotated

import typer

from gcattn.cli.paths import expand

# sentences in one error line
_SHOWN = 3


def verify(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            callback=expand,
            help="A model, run, checkpoint, cache, memory or folder of token shards.",
        ),
    ],
    record: Annotated[
        bool,
        typer.Option("--record", help="Accept the files as they are now: write new checksums."),
    ] = False,
) -> None:
    """Check every file against the checksum recorded when it was written.

    If files have changed, names them and exits with code 2. Folders inside FOLDER are checked too.
    """
    from gcattn.cli.memory import verify as verify_memory
    from gcattn.memory.saved.description import DESCRIPTION
    from gcattn.storage.manifest import MANIFEST, damages, manifest_text, read_manifest
    from gcattn.storage.whole import new_file

    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    # a saved cache has both, and its manifest knows all of it
    if (folder / DESCRIPTION).is_file() and not (folder / MANIFEST).is_file():
        if record:
            raise ValueError(f"{folder} is a memory, whose checksums are written with it for good.")
        verify_memory(folder)
        return
    folders = sorted(manifest.parent for manifest in folder.rglob(MANIFEST))
    if record:
        for recorded in folders or [folder]:
            text = manifest_text(recorded)
            with new_file(recorded / MANIFEST) as stream:
                stream.write(text)
            typer.echo(f"Recorded the files of {recorded}")
        return
    if not folders:
        raise FileNotFoundError(
            f"{folder} has no {MANIFEST} to compare with; gcattn verify {folder} --record writes "
            "one of the files as they are now."
        )
    found = [sentence for checked in folders for sentence in damages(checked)]
    if found:
        more = [f"And {len(found) - _SHOWN} more."] if len(found) > _SHOWN else []
        raise ValueError(" ".join([*found[:_SHOWN], *more]))
    files = [file for checked in folders for file in read_manifest(checked)]
    hashed = sum(file.sha256 is not None for file in files)
    size = sum(file.num_bytes for file in files) / 1e6
    typer.echo(f"{len(files)} files, {size:,.1f} MB: as they were written")
    if hashed < len(files):
        typer.echo(f"Of {len(files) - hashed} of them only the size is known (an older release).")
