"""A memory of files is the same whatever happened while it was made."""

import random
from dataclasses import replace

import pytest
import torch
from library_runs import Killed, assert_same, killed_after, read, tensors_of, write_files

from gcattn.library.asking import Library
from gcattn.library.state import read_state
from gcattn.memory.saved import open_memory


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("texts"), 12)


@pytest.fixture(scope="module")
def whole(texts, model, tokenizer, settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("memories") / "whole"
    read(folder, model, tokenizer, settings, [texts])
    return folder


def test_a_memory_holds_every_file_with_its_name_its_tokens_and_its_lines(whole, texts, tokenizer):
    memory = open_memory(whole)
    files = sorted(texts.iterdir())
    assert [document.name for document in memory.documents] == [str(file) for file in files]
    for file, document in zip(files, memory.documents, strict=True):
        ids = tokenizer(file.read_text(), add_special_tokens=False).input_ids
        end = document.first_chunk + document.num_chunks
        assert memory.token_ids(document.first_chunk, end).tolist() == ids
        assert document.num_chunks == -(-len(ids) // 8)
        for chunk in range(document.first_chunk, end):
            passage = memory.passage(chunk)
            before = tokenizer.decode(ids[: passage.first_token])
            assert passage.line == 1 + before.count("\n")


def test_chunks_are_those_of_the_document_alone(whole, texts, model, tokenizer):
    memory, (held, documents) = open_memory(whole), tensors_of(whole)
    for document in documents:
        if not document.num_chunks:
            continue
        chunks = slice(document.first_chunk, document.first_chunk + document.num_chunks)
        ids = memory.token_ids(chunks.start, chunks.stop)[None]
        ends = torch.zeros_like(ids, dtype=torch.bool)
        ends[:, -1] = True
        alone = model.base_model.encode_chunks(ids, chunk_breaks=ends)
        torch.testing.assert_close(held["landmarks"][chunks], alone.landmarks[0])
        torch.testing.assert_close(held["chunks"][chunks, 0], alone.keys[0])
        torch.testing.assert_close(held["chunks"][chunks, 1], alone.values[0])


@pytest.mark.parametrize("runs", [2, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("part_bytes", [1, 6000])
def test_killed_at_any_moments_and_gone_on_with_it_is_the_same_bitwise(
    part_bytes, runs, texts, model, tokenizer, settings, tmp_path, monkeypatch
):
    settings = replace(settings, part_bytes=part_bytes)
    read(tmp_path / "whole", model, tokenizer, settings, [texts])
    draw = random.Random(part_bytes)
    encode = type(model.base_model).encode_chunks
    left = [0]

    def interrupted(self, *args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return encode(self, *args, **kwargs)

    monkeypatch.setattr(type(model.base_model), "encode_chunks", interrupted)
    for number in range(runs):
        kills = 0
        while True:
            left[0] = draw.randint(0, 5)
            try:
                read(tmp_path / str(number), model, tokenizer, settings, [texts])
                break
            except Killed:
                kills += 1
            if kills > 8:
                left[0] = 10**6
        assert_same(tmp_path / "whole", tmp_path / str(number))
        assert read_state(tmp_path / str(number)).unfinished is None


def test_appended_is_built_at_once(texts, model, tokenizer, settings, tmp_path):
    files = sorted(texts.iterdir())
    read(tmp_path / "once", model, tokenizer, settings, files)
    read(tmp_path / "bit_by_bit", model, tokenizer, settings, files[:4])
    for some in (files[4:5], files[5:]):
        read(tmp_path / "bit_by_bit", model, tokenizer, settings, some, new=False)
    (once, documents), (bits, others) = map(
        tensors_of, (tmp_path / "once", tmp_path / "bit_by_bit")
    )
    assert documents == others
    for name in ("lengths", "lines", "token_ids"):
        assert torch.equal(once[name], bits[name])
    # to rounding: a document may lie elsewhere in its block
    for name in ("landmarks", "chunks"):
        torch.testing.assert_close(once[name], bits[name])


def test_a_finished_memory_is_not_built_over(whole, texts, model, tokenizer, settings):
    with pytest.raises(FileExistsError, match="holds a memory already; gcattn memory append adds"):
        read(whole, model, tokenizer, settings, [texts])


def test_a_folder_of_something_else_is_left_alone(texts, model, tokenizer, settings, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already; choose another name"):
        read(tmp_path, model, tokenizer, settings, [texts])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_adding_to_no_memory_says_how_one_is_made(texts, model, tokenizer, settings, tmp_path):
    with pytest.raises(FileNotFoundError, match="gcattn memory build makes one"):
        read(tmp_path / "none", model, tokenizer, settings, [texts], new=False)


def test_files_that_change_under_a_killed_run_are_noticed(model, tokenizer, settings, tmp_path):
    texts = write_files(tmp_path / "texts", 8)
    arguments = model, tokenizer, settings, [texts]
    with pytest.raises(Killed):
        read(tmp_path / "memory", *arguments, on_progress=killed_after(3))
    file = texts / "001.txt"
    kept = file.read_text()
    for change in (lambda: file.write_text(kept + "more"), file.unlink):
        change()
        with pytest.raises(ValueError, match=r"has come, gone or changed since the run"):
            read(tmp_path / "memory", *arguments)
    file.write_text(kept)
    (texts / "0001.txt").write_text("new")
    with pytest.raises(ValueError, match=r"0001\.txt has come, gone or changed"):
        read(tmp_path / "memory", *arguments)
    (texts / "0001.txt").unlink()
    read(tmp_path / "memory", *arguments)


def test_another_run_waits_until_a_killed_one_is_finished(model, tokenizer, settings, tmp_path):
    texts = write_files(tmp_path / "texts", 6)
    with pytest.raises(Killed):
        read(tmp_path / "memory", model, tokenizer, settings, [texts], on_progress=killed_after(2))
    other = write_files(tmp_path / "other", 1, large=None)
    with pytest.raises(ValueError, match="is not finished; give the same files again"):
        read(tmp_path / "memory", model, tokenizer, settings, [other], new=False)


def test_what_is_no_text_is_left_out_of_a_folder_and_refused_by_name(
    model, tokenizer, settings, tmp_path
):
    texts = write_files(tmp_path / "texts", 3, large=None)
    (texts / "000.bin").write_bytes(b"\0\1\2")
    (texts / "wide.txt").write_bytes(b"fine\n" * 100 + b"caf\xe9\n")  # more than a block
    problems = []
    read(tmp_path / "memory", model, tokenizer, settings, [texts], on_problem=problems.append)
    assert [problem.split(": ")[1][:13] for problem in problems] == [
        "expected text",
        "expected UTF-",
    ]
    names = [document.name for document in open_memory(tmp_path / "memory").documents]
    assert len(names) == 5 and names[0].endswith("000.bin")
    for name in ("000.bin", "wide.txt"):
        with pytest.raises(ValueError, match=name):
            read(tmp_path / f"of_{name}", model, tokenizer, settings, [texts / name])


@pytest.mark.slow  # a process imports torch before it tokenizes
def test_tokenised_ahead_in_other_processes_it_is_the_same_bitwise(
    whole, texts, model, tokenizer, settings, tmp_path
):
    read(tmp_path / "ahead", model, tokenizer, settings, [texts], num_workers=2)
    assert_same(whole, tmp_path / "ahead")


def test_without_keys_and_values_a_memory_is_small_and_answers_the_same(
    whole, texts, model, tokenizer, settings, tmp_path
):
    small = replace(settings, keys_values=False)
    read(tmp_path / "small", model, tokenizer, small, [texts])
    sizes = [
        sum(part.bytes for part in open_memory(folder).description.parts)
        for folder in (whole, tmp_path / "small")
    ]
    assert sizes[1] < sizes[0] / 2
    libraries = [
        Library(open_memory(folder), model, tokenizer) for folder in (whole, tmp_path / "small")
    ]
    whole_answer, small_answer = (x.ask("Who knew?", max_new_tokens=5) for x in libraries)
    assert whole_answer.text == small_answer.text
    assert [x.chunk for x in whole_answer.sources] == [x.chunk for x in small_answer.sources]
