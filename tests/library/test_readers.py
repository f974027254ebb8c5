"""Files become text whose every character knows its line, or its page."""

import sys

import numpy as np
import pytest

from gcattn.data import load_tokenizer
from gcattn.data.text_pieces import TextCutter
from gcattn.library import readers
from gcattn.library.files import SourceFile, find_files
from gcattn.library.marked_text import cut
from gcattn.library.readers import read_file


def written(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return SourceFile(path, path.stat().st_size, True)


def place(pieces, words):
    """Return the line or page on which the words begin."""
    text = "".join(piece.text for piece in pieces)
    at, before = text.index(words), 0
    for piece in pieces:
        if at < before + len(piece.text):
            return int(piece.place_of(np.array([at - before]))[0])
        before += len(piece.text)
    raise AssertionError


def test_a_folder_gives_its_files_in_the_order_of_their_names_whatever_made_them(tmp_path):
    for name in ("b/2.md", "b/10.md", "a.py", "c.txt", ".hidden", ".git/x", "b/inner/z.txt"):
        written(tmp_path, name, "text")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = [file.path.relative_to(tmp_path).as_posix() for file in find_files([tmp_path])]
    assert found == ["a.py", "b/10.md", "b/2.md", "b/inner/z.txt", "c.txt"]


def test_files_are_found_one_by_one(tmp_path):
    for number in range(5):
        written(tmp_path, f"{number}/a.txt", "text")
    found = find_files([tmp_path])
    next(found)
    (tmp_path / "4" / "a.txt").unlink()
    assert len(list(found)) == 3


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is neither a file nor a folder"):
        list(find_files([tmp_path / "nowhere"]))


def test_text_knows_its_lines_in_whatever_pieces_it_is_read(tmp_path, monkeypatch):
    lines = [f"line {number} is here, äöü 文\n" for number in range(1, 400)]
    file = written(tmp_path, "text.md", "".join(lines))
    for piece in (7, 64, 10_000):
        monkeypatch.setattr(readers, "PIECE", piece)
        pieces = list(read_file(file))
        assert "".join(piece.text for piece in pieces) == "".join(lines)
        assert [place(pieces, f"line {n} ") for n in (1, 2, 250, 399)] == [1, 2, 250, 399]


def test_cut_text_still_knows_its_lines(tmp_path, monkeypatch):
    text = "".join(f"On line {number} something is said.\n" for number in range(1, 9000))
    file = written(tmp_path, "long.txt", text)
    cutter = TextCutter(load_tokenizer().backend_tokenizer)
    parts = list(cut(read_file(file), cutter))
    assert len(parts) > 3 and "".join(part.text for part in parts) == text
    for number in (1, 2, 2500, 5001, 8999):
        assert place(parts, f"line {number} ") == number


PAGE = """<!doctype html>
<html><head><title>A page</title>
<style>p { color: red }</style></head>
<body><h1>Heading</h1>
<p>First <b>bold</b>
   words,
   more&nbsp;of &lt;them&gt;.</p><p>Second</p>
<script>var hidden = 1;</script>
<pre>kept   blanks
  and lines</pre>
last</body></html>
"""


def test_a_page_is_read_as_it_is_seen_and_knows_the_lines_of_its_file(tmp_path):
    pieces = list(read_file(written(tmp_path, "page.html", PAGE)))
    text = "".join(piece.text for piece in pieces)
    assert text == (
        "A page\nHeading\nFirst bold words, more of <them>.\nSecond\n"
        "kept   blanks\n  and lines\nlast\n"
    )
    lines = {"A page": 2, "Heading": 4, "First": 5, "words,": 6, "Second": 7, "and lines": 10}
    assert {words: place(pieces, words) for words in lines} == lines


def pdf(*pages):
    """Write a PDF with a line of text on each page, by hand."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for n, text in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Contents {5 + 2 * n} 0 R "
            "/Resources << /Font << /F 3 0 R >> >> >>".encode()
        )
        stream = f"BT /F 12 Tf 20 200 Td ({text}) Tj ET".encode()
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size, begin = len(objects) + 1, len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, begin)
    return out


def test_a_pdf_knows_its_pages(tmp_path):
    pytest.importorskip("pypdf")
    content = pdf("The first page", "", "The third one")
    pieces = list(read_file(written(tmp_path, "paper.pdf", content)))
    assert "".join(piece.text for piece in pieces) == "The first page\nThe third one\n"
    assert place(pieces, "first") == 1 and place(pieces, "third") == 3


def test_a_damaged_pdf_is_refused_in_one_line(tmp_path):
    pytest.importorskip("pypdf")
    with pytest.raises(ValueError, match=r"paper\.pdf: not a readable PDF \(.*\)\.$"):
        list(read_file(written(tmp_path, "paper.pdf", b"%PDF-1.4 and no more")))


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(ValueError, match=r"pip install 'gcattn\[pdf\]'"):
        list(read_file(written(tmp_path, "paper.pdf", pdf("page"))))


@pytest.mark.parametrize("content", [b"\x7fELF\0\0\1", b"caf\xe9 au lait"])
def test_what_is_no_text_is_refused_by_name(tmp_path, content):
    with pytest.raises(ValueError, match=r"program: expected text|program, line 1: expected UTF-8"):
        list(read_file(written(tmp_path, "program", content)))
