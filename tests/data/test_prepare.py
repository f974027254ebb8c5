"""Preparation: whole or not at all, and every wrong use has its answer."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from gcattn.data import TokenShards, TokenShardWriter, prepare, prepare_shards


def test_number_of_documents_can_be_limited(jsonl, tmp_path):
    assert prepare_shards(str(jsonl), tmp_path / "out", max_documents=2).num_documents == 2


def test_shards_close_only_between_documents(shards):
    files = sorted(shards.folder.glob("shard_*.bin"))
    assert len(files) > 2
    sizes = [file.stat().st_size // 2 for file in files]
    starts = set(shards.document_starts.tolist())
    assert all(sum(sizes[:i]) in starts for i in range(len(sizes)))
    assert all(size >= 15 for size in sizes[:-1])


def test_preparing_twice_gives_the_same_bytes(jsonl, shards, tmp_path):
    again = prepare_shards(str(jsonl), tmp_path / "again", shard_tokens=15)
    for file in shards.folder.rglob("*"):
        if file.is_file():
            copy = again.folder / file.relative_to(shards.folder)
            assert copy.read_bytes() == file.read_bytes()


def test_progress_counts_documents_and_tokens(jsonl, tmp_path, texts):
    calls = []
    shards = prepare_shards(
        str(jsonl), tmp_path / "out", on_progress=lambda *counts: calls.append(counts)
    )
    assert calls[-1] == (len(texts), shards.num_tokens)


def test_an_interrupted_run_leaves_nothing_behind(jsonl, tmp_path):
    def interrupt(*counts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_shards(str(jsonl), tmp_path / "out", on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_overwrite_keeps_the_former_shards(jsonl, tmp_path):
    former = prepare_shards(str(jsonl), tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        prepare_shards(str(tmp_path / "nowhere.txt"), tmp_path / "out", overwrite=True)
    assert TokenShards(tmp_path / "out").num_tokens == former.num_tokens
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_overwrite_replaces_shards_and_nothing_else(jsonl, tmp_path):
    prepare_shards(str(jsonl), tmp_path / "out")
    with pytest.raises(FileExistsError, match="exists; pass --overwrite"):
        prepare_shards(str(jsonl), tmp_path / "out")
    fewer = prepare_shards(str(jsonl), tmp_path / "out", max_documents=1, overwrite=True)
    assert fewer.num_documents == 1
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="not a folder of token shards"):
        prepare_shards(str(jsonl), tmp_path / "precious", overwrite=True)
    assert (tmp_path / "precious/thesis.txt").exists()


def test_an_empty_folder_may_be_the_target(jsonl, tmp_path, texts):
    (tmp_path / "out").mkdir()
    assert prepare_shards(str(jsonl), tmp_path / "out").num_documents == len(texts)


def test_an_empty_source_is_refused_and_leaves_nothing(tmp_path):
    file = tmp_path / "empty.jsonl"
    file.write_text(json.dumps({"text": ""}) + "\n")
    with pytest.raises(ValueError, match="holds no documents with text"):
        prepare_shards(str(file), tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty.jsonl"]


def test_an_unwritable_place_is_one_clear_line(jsonl, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"Can't write to .*file/deeper .*choose another --out"):
        prepare_shards(str(jsonl), tmp_path / "file/deeper/out")


def test_counts_below_one_are_refused(jsonl, tmp_path, tokenizer):
    with pytest.raises(ValueError, match="max_documents must be at least 1, got 0"):
        prepare_shards(str(jsonl), tmp_path / "out", max_documents=0)
    with pytest.raises(ValueError, match="shard_tokens must be at least 1, got 0"):
        TokenShardWriter(tmp_path / "out", tokenizer, "name", shard_tokens=0)


def test_a_document_that_breaks_off_in_its_middle_leaves_no_trace(tmp_path, monkeypatch):
    for module in ("file_readers", "text_column"):
        monkeypatch.setattr(f"gcattn.data.{module}.PIECE", 64)
    monkeypatch.setattr("gcattn.data.prepare._BATCH_CHARACTERS", 64)
    monkeypatch.setattr("gcattn.data.text_pieces.PART_CHARACTERS", 32)
    good, bad = b"The wind rose and fell. " * 20, b"It rained all the day. " * 20 + b"\xff"
    for name, content in {"a": good, "b": bad, "c": good, "d": bad}.items():
        (tmp_path / f"{name}.txt").write_bytes(content)
    reports = []
    source = str(tmp_path / "*.txt")
    with pytest.raises(ValueError, match=r"b\.txt, line 1: expected UTF-8"):
        prepare_shards(source, tmp_path / "out")
    shards = prepare_shards(source, tmp_path / "out", shard_tokens=1, on_invalid=reports.append)
    assert [report.split(":")[0][-13:] for report in reports] == ["b.txt, line 1", "d.txt, line 1"]
    assert shards.num_documents == 2
    assert shards.document(0).tolist() == shards.document(1).tolist()
    assert shards.num_bytes == 2 * len(good)
    assert len(list((tmp_path / "out").glob("shard_*"))) == 2


def test_documents_behind_the_limit_are_not_looked_at(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"}\nno JSON\n')
    assert prepare_shards(str(tmp_path / "a.jsonl"), tmp_path / "out", max_documents=2)


def test_memory_does_not_grow_with_a_document(tmp_path, monkeypatch):
    """Parts of a long document go to the encoder a few at a time, whatever the format."""
    sizes = []
    encode = prepare._encode

    def counted(parts, backend):
        sizes.append(sum(len(part.text) for part in parts))
        return encode(parts, backend)

    monkeypatch.setattr(prepare, "_encode", counted)
    monkeypatch.setattr(prepare, "_BATCH_CHARACTERS", 2**17)
    text = "the house by the river, and the wind\n" * 24_000
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}))
    pyarrow.parquet.write_table(pyarrow.table({"text": [text]}), tmp_path / "a.parquet")
    expected = None
    for name in ("a.txt", "a.jsonl", "a.parquet"):
        shards = prepare_shards(str(tmp_path / name), tmp_path / f"out-{name}")
        expected = shards.document(0).tolist() if expected is None else expected
        assert shards.document(0).tolist() == expected
    assert len(sizes) > 15
    assert max(sizes) < 2**17 + 2 * 2**16
