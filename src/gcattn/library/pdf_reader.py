"""The text of a PDF, page by page; needs pypdf from the extra `pdf`."""

from __future__ import annotations

import logging
from pathlib import Path

from gcattn.library.marked_text import MarkedText


def read_pdf(file: Path) -> MarkedText:
    """Return the text of all pages, each marked with its number, counted from 1.

    A page without text, such as a scanned one, gives nothing.

    Raises:
        ValueError: The file is damaged or locked with a password, or pypdf is not installed.
    """
    try:
        from pypdf import PdfReader
    except ImportError as error:
        raise ValueError(
            f"{file}: reading PDF needs pypdf; install it with: pip install 'gcattn[pdf]'."
        ) from error
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # about every oddity that it tolerates
    try:
        pages = [page.extract_text() for page in PdfReader(file).pages]
    except Exception as error:  # on damaged files the library raises any kind of error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{file}: not a readable PDF ({reason}).") from error
    return MarkedText.joined(
        (f"{text}\n", number) for number, text in enumerate(pages, start=1) if text.strip()
    )
