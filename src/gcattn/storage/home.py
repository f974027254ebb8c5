"""Paths that begin with `~`, which a shell does not replace everywhere."""

from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """Return a path with the home folder in place of `~` or `~name`.

    Raises:
        ValueError: There is no user of that name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{path}: there is no such user; write ./{path} for a file of that name."
        ) from error
