"""Reading of local sources: every format, splits of folders, and errors that name the file."""

import json

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
        file.write_bytes(texts[0].encode())
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


def test_titles_that_merely_hold_the_name_of_a_split_are_all_read(tmp_path):
    for name in ("the-test-of-time", "train-journeys", "walden"):
        write(tmp_path / f"{name}.txt", [name])
    assert len(list(read_documents(str(tmp_path)))) == 3


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_a_missing_column_is_answered_with_those_there_are(tmp_path, suffix):
    file = write(tmp_path / f"data{suffix}", ["a"], column="article")
    with pytest.raises(ValueError, match=r"no column 'text'; its columns are: article, id"):
        list(read_documents(str(file)))
    assert list(read_documents(str(file), text_column="article")) == ["a"]


def test_a_column_of_numbers_is_refused(tmp_path):
    file = write(tmp_path / "data.jsonl", ["a"])
    with pytest.raises(ValueError, match=r"data\.jsonl: column 'id' must hold text, got int"):
        list(read_documents(str(file), text_column="id"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text"', r"a\.jsonl, line 2: not valid JSON"),
        ("a.jsonl", b'["x"]', "line 1: expected a JSON object, got list"),
        ("a.jsonl", b'{"text": "\\ud800"}', r"a\.jsonl: expected UTF-8"),
        ("a.txt", b"\xff\xfe", r"a\.txt: expected UTF-8"),
        ("a.parquet", b"PAR1 not", r"a\.parquet: not a readable parquet file"),
        ("a.csv", b"text", r"a\.csv: expected one of \.parquet"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_documents(str(tmp_path / name)))


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
