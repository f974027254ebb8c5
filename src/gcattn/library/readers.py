"""From a file to its text: plain text, Markdown, source code, HTML and PDF.

The suffix of a file decides how it is read. Files with an unknown suffix are read as text, unless
they contain zero bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from gcattn.data.file_readers import decoded
from gcattn.data.text_column import PIECE
from gcattn.library.files import SourceFile
from gcattn.library.marked_text import MarkedText

Kind = Literal["text", "html", "pdf"]
_KINDS: dict[str, Kind] = {".html": "html", ".htm": "html", ".xhtml": "html", ".pdf": "pdf"}


def kind_of(file: SourceFile) -> Kind:
    """Return how a file is read; places are lines, or pages of a PDF."""
    return _KINDS.get(file.path.suffix.lower(), "text")


def read_file(file: SourceFile) -> Iterator[MarkedText]:
    """Yield the text of a file in pieces; nothing for a file without text.

    Raises:
        ValueError: The file is not what its suffix says, or not UTF-8 text.
        OSError: It cannot be read.
    """
    kind = kind_of(file)
    if kind == "text":
        yield from _read_text(file)
        return
    if kind == "html":
        from gcattn.library.html_reader import read_html

        with file.path.open("rb") as stream:
            pieces = list(decoded(file.name, [stream.read()]))
        yield read_html("".join(pieces))
        return
    from gcattn.library.pdf_reader import read_pdf

    yield read_pdf(file.path)


def _read_text(file: SourceFile) -> Iterator[MarkedText]:
    line = 1
    with file.path.open("rb") as stream:
        blocks = iter(lambda: stream.read(PIECE), b"")
        for text in decoded(file.name, _checked(file, blocks)):
            yield MarkedText.of_lines(text, line)
            line += text.count("\n")


def _checked(file: SourceFile, blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        if b"\0" in block:
            raise ValueError(f"{file.name}: expected text, got a file with zero bytes in it.")
        yield block
