"""Claims about jsonl lines too long for memory: what comes out is what `json` reads."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcattn.data import read_documents
from gcattn.data.long_json_line import LongJsonObject

CHARACTERS = st.sampled_from([*'ab "\\/\n\t{}[]:,1', "é", "漢", "🙂", "\ud83d", "\udc4d", "\x7f"])
TEXTS = st.text(CHARACTERS, max_size=30).map(
    lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def read(line, size, key="text"):
    chunks = [line[i : i + size] for i in range(0, len(line), size)]
    parsed = LongJsonObject(chunks)
    return "".join(parsed.text(key)), parsed.keys


@given(
    record=st.dictionaries(TEXTS, VALUES, max_size=4),
    text=TEXTS,
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
    size=st.integers(1, 40),
)
def test_any_cut_of_a_line_gives_the_text_that_json_gives(record, text, ascii_only, indent, size):
    record["text"] = text
    line = json.dumps(record, ensure_ascii=ascii_only, indent=indent)
    assert read(line, size) == (text, list(record))


@given(st.lists(st.sampled_from([*'{}[]":,\\ux1n ', "text", '"text":', '"x"']), max_size=12))
def test_no_line_that_json_reads_gives_another_text(parts):
    line = "".join(parts)
    try:
        found, _ = read(line, 3)
    except ValueError:
        return
    try:
        expected = json.loads(line)
    except ValueError:
        return  # what is skipped is not looked at closely
    assert found == (expected.get("text") or "")


@pytest.mark.parametrize(
    "line",
    [
        "[1]",
        '{"text": "a',
        '{"text": "a\\q1234567890123"}',
        '{"text": "a"',
        '{"text": "a"} {}',
        '{"text": "a", }',
        '{"text": "a" "b": 1}',
        '{"text": "a", "text": "b"}',
        '{"text": "a\x01"}',
        '{"text": ["a"]}',
        '{"text": 5}',
        '{"id": , "text": "a"}',
    ],
)
def test_a_malformed_line_is_refused(line):
    for size in (1, 5, 100):
        with pytest.raises(ValueError, match=r"\w"):
            read(line, size)


@pytest.fixture
def short_lines(monkeypatch):
    """Take every line for a long one."""
    monkeypatch.setattr("gcattn.data.file_readers.LONG_LINE", 16)
    for module in ("file_readers", "text_column"):
        monkeypatch.setattr(f"gcattn.data.{module}.PIECE", 8)


def test_long_lines_are_read_and_refused_like_short_ones(short_lines, tmp_path):
    file = tmp_path / "a.jsonl"
    long = "漢字 and 🙂 " * 9
    records = [{"id": 1, "text": long}, {"text": ""}, {"text": "short"}, {"a": {"text": "b" * 20}}]
    lines = [*map(json.dumps, records), '{"text": "' + "x" * 40, json.dumps({"text": long[::-1]})]
    file.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    reports = []
    assert list(read_documents(str(file), on_invalid=reports.append)) == [long, "short", long[::-1]]
    assert [report.split(".jsonl, ")[1] for report in reports] == [
        "line 4 has no column 'text'; its columns are: a. Choose one with --text-column.",
        "line 5: not valid JSON (a string with a bad escape or without an end).",
    ]


def test_a_long_line_that_is_no_utf8_is_named(short_lines, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": null}\n{"text": "' + b"x" * 40 + b'\xff"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: expected UTF-8 text .byte 0xff"):
        list(read_documents(str(tmp_path / "a.jsonl"), on_invalid=None, text_column="text"))
