"""The text of an HTML page, with the line of the file for each span of text."""

from __future__ import annotations

from html.parser import HTMLParser

from gcattn.library.marked_text import MarkedText

_UNSEEN = frozenset({"script", "style", "template", "noscript", "head"})
_BLOCKS = frozenset(
    """
    address article aside blockquote body br caption dd details div dl dt fieldset figcaption figure
    footer form h1 h2 h3 h4 h5 h6 header hr html li main nav ol option p pre section summary table
    tbody td tfoot th thead title tr ul
    """.split()  # noqa: SIM905 (one a line would be a page)
)


def read_html(source: str) -> MarkedText:
    """Return what a reader of the page sees; blocks end with a line break.

    The title is kept, scripts and styles are not; whitespace is collapsed, except in `pre`.
    """
    parser = _Page()
    parser.feed(source)
    parser.close()
    return MarkedText.joined(parser.stretches)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.stretches: list[tuple[str, int]] = []
        self._open: list[str] = []  # tags that hide text or keep its whitespace
        self._at_break = True  # nothing has been written on this line
        self._owes_blank = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self._break()
        if tag in _UNSEEN or tag in ("title", "pre"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self._break()

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._break()
        if tag in self._open:
            del self._open[len(self._open) - 1 - self._open[::-1].index(tag) :]

    def handle_data(self, data: str) -> None:
        hides = [tag for tag in self._open if tag in _UNSEEN]
        if hides and not (hides == ["head"] and self._open[-1] == "title"):
            return
        first_line, _ = self.getpos()
        keeps_blanks = "pre" in self._open
        for number, line in enumerate(data.split("\n")):
            if keeps_blanks:
                if number:
                    self._write("\n", first_line + number - 1)
                if line:
                    self._write(line, first_line + number)
                self._at_break = not line and (bool(number) or self._at_break)
                continue
            words = line.split()
            self._owes_blank |= bool(number) or line[:1].isspace()
            if not words:
                continue
            blank = " " if self._owes_blank and not self._at_break else ""
            self._write(blank + " ".join(words), first_line + number)
            self._at_break, self._owes_blank = False, line[-1:].isspace()

    def _break(self) -> None:
        if not self._at_break:
            self._write("\n", self.getpos()[0])
        self._at_break, self._owes_blank = True, False

    def _write(self, text: str, line: int) -> None:
        self.stretches.append((text, line))
