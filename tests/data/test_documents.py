"""Reading of local sources: every format, splits of folders, and errors that name the file."""

import bz2
import gzip
import json
import lzma
import os
import sys

import pyarrow
import pyarrow.parquet
import pytest

from gcattn.data import read_documents

TEXTS = ["one\r\ntwo", "", "thrée"]


def write(file, texts, column="text"):
    """Write the texts in the format of the file's suffix (txt takes the first text alone)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    records = [{column: text, "id": number} for number, text in enumerate(texts)]
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), file)
    elif file.suffix == ".jsonl":
        file.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    elif file.suffix == ".json":
        file.write_text(json.dumps(records), encoding="utf-8")
    else:
        file.write_bytes((texts[0] if file.suffix == ".txt" else "a,b").encode())
    return file


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_every_format_gives_the_same_texts_without_the_empty_ones(tmp_path, suffix):
    file = write(tmp_path / f"data{suffix}", [*TEXTS, None])
    assert list(read_documents(str(file))) == ["one\r\ntwo", "thrée"]


def test_a_txt_file_is_one_document_as_it_is(tmp_path):
    file = write(tmp_path / "book.txt", TEXTS)
    assert list(read_documents(str(file))) == ["one\r\ntwo"]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    for name in ("b", "a", "deeper/c"):
        write(tmp_path / f"{name}.txt", [name])
    assert list(read_documents(str(tmp_path))) == ["a", "b", "deeper/c"]


def test_a_glob_pattern_reads_what_it_matches(tmp_path):
    for name in ("x1", "x2", "y1"):
        write(tmp_path / f"{name}.txt", [name])
    assert list(read_documents(str(tmp_path / "x*.txt"))) == ["x1", "x2"]


def test_file_names_of_a_folder_choose_the_split(tmp_path):
    for name in ("train-00000", "train-00001", "validation-00000"):
        write(tmp_path / f"{name}.parquet", [name])
    assert list(read_documents(str(tmp_path))) == ["train-00000", "train-00001"]
    assert list(read_documents(str(tmp_path), split="val")) == ["validation-00000"]
    with pytest.raises(ValueError, match="no files of split 'test'; it has: train, validation"):
        list(read_documents(str(tmp_path), split="test"))


def test_names_that_do_not_all_say_a_split_are_refused(tmp_path):
    for name in ("train", "validation", "extra"):
        write(tmp_path / f"{name}.jsonl", [name])
    for split in (None, "train", "validation"):
        with pytest.raises(ValueError, match=r"some do not \(extra\.jsonl\); pass --split all"):
            list(read_documents(str(tmp_path), split=split))
    assert list(read_documents(str(tmp_path), split="all")) == ["extra", "train", "validation"]
    assert list(read_documents(str(tmp_path / "train*"))) == ["train"]


@pytest.mark.parametrize("source", ["", "a.txt", "*.txt"])
def test_a_split_that_no_name_says_is_refused(tmp_path, source):
    for name in "ab":
        write(tmp_path / f"{name}.txt", [name])
    for split in ("train", "validation", "test"):
        with pytest.raises(ValueError, match=f"says its split, so '{split}' can't be told apart"):
            list(read_documents(str(tmp_path / source), split=split))


@pytest.mark.parametrize(
    "names",
    [
        ("train/a", "validation/a"),
        ("wiki.train", "wiki.valid"),
        ("Train-0", "DEV-0"),
        ("corpus_train", "corpus_val"),
    ],
)
def test_folders_and_parts_of_names_say_a_split(tmp_path, names):
    for name in names:
        write(tmp_path / f"{name}.txt", [name])
    for split, name in zip((None, "validation"), names, strict=True):
        assert list(read_documents(str(tmp_path), split=split)) == [name]


def test_a_name_that_says_two_splits_says_none(tmp_path):
    for name in ("train/test-pilots", "train/a"):
        write(tmp_path / f"{name}.txt", [name])
    with pytest.raises(ValueError, match=r"some do not \(test-pilots\.txt\)"):
        list(read_documents(str(tmp_path)))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_a_missing_column_is_answered_with_those_there_are(tmp_path, suffix):
    file = write(tmp_path / f"data{suffix}", ["a"], column="article")
    with pytest.raises(ValueError, match=r"no column 'text'; its columns are: article, id"):
        list(read_documents(str(file)))
    assert list(read_documents(str(file), text_column="article")) == ["a"]


def test_a_column_of_numbers_is_refused(tmp_path):
    file = write(tmp_path / "data.jsonl", ["a"])
    with pytest.raises(
        ValueError, match=r"data\.jsonl, line 1: column 'id' must hold text, got int"
    ):
        list(read_documents(str(file), text_column="id"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text"', r"a\.jsonl, line 2: not valid JSON"),
        ("a.jsonl", b'["x"]', "line 1: expected a JSON object, got list"),
        ("a.jsonl", b'{"text": "\\ud800"}', r"a\.jsonl, line 1: expected UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n\n{"text": "\xff"}', "line 3: expected UTF-8 text .byte 0xff"),
        ("a.jsonl", b'{"text": "x"}\n' + b"[" * 100_000, "line 2: .*nested too deeply"),
        ("a.jsonl", b'{"text": "x", "n": ' + b"1" * 5000 + b"}", "line 1: .*too many digits"),
        ("a.jsonl", b'{"text": "x", "text": "y"}', "line 1: .*key 'text' comes twice"),
        ("a.json", b"[" * 100_000, r"a\.json: .*nested too deeply"),
        ("a.json", b"[1]", r"a\.json, record 1: expected a JSON object, got int"),
        ("a.json", b'[{"text":\n "\xff"}]', r"a\.json, line 2: expected UTF-8"),
        ("a.txt", b"\xff\xfe", r"a\.txt, line 1: expected UTF-8"),
        ("a.txt", b"one\ntwo\nthr\xe9e\n", r"a\.txt, line 3: expected UTF-8 text .byte 0xe9"),
        ("a.parquet", b"PAR1 not", r"a\.parquet: not a readable parquet file"),
        ("a.csv", b"text", r"a\.csv: expected one of \.parquet"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_documents(str(tmp_path / name)))


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, name):
    file = write(tmp_path / name, ["mark"])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert list(read_documents(str(file))) == ["mark"]


def compressed(content, ending):
    """Return bytes as a compressor leaves them; .zst in two frames."""
    if ending == ".zst":
        zstandard = pytest.importorskip("zstandard")
        half = len(content) // 2
        compress = zstandard.ZstdCompressor().compress
        return compress(content[:half]) + compress(content[half:])
    return {".gz": gzip, ".bz2": bz2, ".xz": lzma}[ending].compress(content)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".txt"])
def test_compressed_files_are_read_as_what_they_hold(tmp_path, suffix, ending):
    plain = write(tmp_path / f"data{suffix}", TEXTS)
    file = tmp_path / f"deeper/data{suffix}{ending}"
    file.parent.mkdir()
    file.write_bytes(compressed(plain.read_bytes(), ending))
    for source in (file, file.parent):
        assert list(read_documents(str(source))) == list(read_documents(str(plain)))


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("damage", ["cut off", "other bytes"])
def test_a_damaged_compressed_file_is_named_and_never_short(tmp_path, ending, damage):
    lines = "".join(json.dumps({"text": str(hash(str(i)))}) + "\n" for i in range(9999))
    content = compressed(lines.encode(), ending)
    file = tmp_path / f"a.jsonl{ending}"
    file.write_bytes(content[:-40] if damage == "cut off" else b"plain text, not compressed")
    with pytest.raises(ValueError, match=rf"a\.jsonl\{ending} is damaged or cut short.*after line"):
        list(read_documents(str(file)))


def test_zst_without_zstandard_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.jsonl.zst").write_bytes(b"")
    with pytest.raises(ValueError, match=r"needs zstandard.*gcattn\[zstd\]"):
        list(read_documents(str(tmp_path / "a.jsonl.zst")))


def test_a_folder_of_mixed_kinds_says_what_is_not_read(tmp_path, caplog):
    for name in ("a.jsonl", "b.txt", "c.csv"):
        write(tmp_path / name, [name])
    (tmp_path / ".hidden").write_text("")
    assert list(read_documents(str(tmp_path))) == ["a.jsonl"]
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{tmp_path}: jsonl files are read; not read: {tmp_path}/b.txt, {tmp_path}/c.csv."
    )


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write(tmp_path / "a.txt", ["a"])
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def refuse(place):
        if str(place).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match=r"Can't read the folder .*secret \(Permission denied\)"):
        list(read_documents(str(tmp_path)))


def test_a_parquet_file_with_the_column_twice_is_refused(tmp_path):
    table = pyarrow.table([["a"], ["b"], ["c"]], names=["text", "text", "id"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet has the column 'text' 2 times"):
        list(read_documents(str(tmp_path / "a.parquet")))


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_every_text_type_of_parquet_is_read(tmp_path, kind):
    plain = pyarrow.array(["één", None, "", "漢字"])
    types = {"string": pyarrow.string(), "large_string": pyarrow.large_string()}
    column = plain.dictionary_encode() if kind == "dictionary" else plain.cast(types[kind])
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    assert list(read_documents(str(tmp_path / "a.parquet"))) == ["één", "漢字"]


def test_what_is_invalid_is_left_out_and_reported_when_asked_for(tmp_path):
    lines = [b'{"text": "one"}', b"{", b'{"text": 5}', b'{"body": "x"}', b'{"text": "two"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "b.jsonl.gz").write_bytes(b"not compressed")
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "three"}')
    reports = []
    texts = list(read_documents(str(tmp_path), on_invalid=reports.append))
    assert texts == ["one", "two", "three"]
    assert [report.split(":")[0].split("/")[-1] for report in reports] == [
        "a.jsonl, line 2",
        "a.jsonl, line 3",
        "a.jsonl, line 4 has no column 'text'; its columns are",
        "b.jsonl.gz is damaged or cut short (Not a gzipped file (b'no')). (after line 0)",
    ]


@pytest.mark.parametrize("source", ["nowhere", "./nowhere/x", "a/b/c", "owner/file.jsonl"])
def test_a_mistyped_path_is_never_looked_up_on_the_network(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist; expected a file, folder"):
        list(read_documents(source))


def test_a_pattern_or_folder_without_files_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="No file matches"):
        list(read_documents(str(tmp_path / "*.jsonl")))
    with pytest.raises(FileNotFoundError, match=r"holds no \.parquet"):
        list(read_documents(str(tmp_path)))
