"""Files are deleted from a memory by path or number: all that were named, or none."""

import os
import shutil

import pytest
import torch
from library_runs import Killed, killed_after, read, write_files

from gcattn import DRTCache, delete_from_library, export_memory, open_memory
from gcattn.storage.lock import FolderInUseError, sole_writer
from gcattn.testing import random_tokens


@pytest.fixture(scope="module")
def built(model, tokenizer, settings, tmp_path_factory):
    """Read `papers/000.txt` … `003.txt`, a file named 7, and `000.txt` once more."""
    place = tmp_path_factory.mktemp("texts")
    here = os.getcwd()
    os.chdir(place)  # names of documents are paths as they were given
    try:
        write_files(place / "papers", 4)
        (place / "7").write_text("The river was dark.\n")
        read(place / "library", model, tokenizer, settings, ["papers", "7"])
        again = ["papers/000.txt"]
        read(place / "library", model, tokenizer, settings, again, new=False)
    finally:
        os.chdir(here)
    return place / "library"


@pytest.fixture
def library(built, tmp_path):
    return shutil.copytree(built, tmp_path / "library")


def deleted(folder):
    return [document.number for document in open_memory(folder).documents if document.is_deleted]


@pytest.mark.parametrize(
    ("files", "numbers"),
    [
        (["papers/002.txt"], [2]),
        (["./papers//002.txt", "papers/001.txt"], [1, 2]),
        (["papers/000.txt"], [0, 5]),  # it was read twice
        (["5"], [5]),
        ([0], [0]),
        (["papers"], [0, 1, 2, 3, 5]),
        (["papers/", "./7"], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_paths_folders_and_numbers_name_documents(files, numbers, library):
    done = delete_from_library(library, files)
    assert [document.number for document in done.deleted] == numbers == deleted(library)
    assert not done.deleted_before


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["papers/002.txt", "papers/9.txt"], r"holds no file papers/9\.txt, so nothing was del"),
        (["papers/002.txt", "002.txt"], r"Did you mean papers/002\.txt\?"),
        (["papers/002.txt", "x", "y", 9], r"no file x and 2 more of those named"),
        (["papers/002.txt", "6"], "holds no document 6"),
        (["papers/002.txt", -1], "holds no document -1"),
        (["paper"], r"holds no file paper,"),
        (["."], r"holds no file \.,"),
        ([""], "holds no file"),
        ([], "Name at least one file"),
    ],
)
def test_a_name_that_is_not_there_deletes_nothing(files, message, library):
    with pytest.raises(ValueError, match=message) as error:
        delete_from_library(library, files)
    assert "\n" not in str(error.value) and deleted(library) == []


def test_a_number_that_is_a_files_name_as_well_is_refused(
    model, tokenizer, settings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").write_text("The river was dark.\n")
    read(tmp_path / "library", model, tokenizer, settings, ["0"])
    with pytest.raises(ValueError, match=r"write \./0 for the file"):
        delete_from_library("library", "0")
    assert delete_from_library("library", "./0").deleted


def test_deleting_again_does_no_harm(library):
    delete_from_library(library, ["papers/002.txt"])
    description = (library / "memory.json").read_bytes()
    done = delete_from_library(library, ["papers/002.txt"])
    assert not done.deleted and [document.number for document in done.deleted_before] == [2]
    assert (library / "memory.json").read_bytes() == description
    done = delete_from_library(library, ["papers"])
    assert len(done.deleted) == 4 and len(done.deleted_before) == 1


def test_a_killed_deletion_has_deleted_all_or_nothing(library, monkeypatch):
    replace = os.replace

    def killed_before(*_):
        raise Killed

    def killed_behind(*names):
        replace(*names)
        raise Killed

    for kill, expected in ((killed_before, []), (killed_behind, [0, 1, 2, 3, 5])):
        monkeypatch.setattr(os, "replace", kill)
        with pytest.raises(Killed):
            delete_from_library(library, "papers")
        monkeypatch.undo()
        assert deleted(library) == expected
    assert len(delete_from_library(library, "papers").deleted_before) == 5


def test_a_memory_that_is_written_or_not_finished_is_refused(
    library, model, tokenizer, settings, tmp_path
):
    with sole_writer(library), pytest.raises(FolderInUseError):
        delete_from_library(library, "papers")
    texts = write_files(tmp_path / "texts", 4)
    begun = tmp_path / "begun"
    with pytest.raises(Killed):
        read(begun, model, tokenizer, settings, [texts], on_progress=killed_after(2))
    with pytest.raises(ValueError, match="is not finished; finish it first"):
        delete_from_library(begun, 0)
    with pytest.raises(FileNotFoundError, match="holds no memory"):
        delete_from_library(tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()


def test_what_is_deleted_is_not_retrieved_and_not_exported(library, model, tmp_path):
    def retrieved():
        memory = open_memory(library)
        ids = random_tokens(model.config, 1, 40, seed=3)
        with torch.no_grad():
            cache = DRTCache(model.config, memory=memory)
            output = model(ids, past_key_values=cache, output_retrieval=True)
        chunks = torch.cat([selection.indices.flatten() for selection in output.retrieval])
        shared = chunks[(chunks >= 0) & (chunks < memory.num_chunks)].tolist()
        return {memory.documents.of_chunk(chunk).number for chunk in shared}

    found = retrieved()
    assert len(found) > 1
    delete_from_library(library, sorted(found)[1:])
    assert not retrieved() & set(sorted(found)[1:])
    export_memory(library, tmp_path / "rest")
    assert len(open_memory(tmp_path / "rest").documents) == 6 - len(found) + 1


def test_files_can_be_added_after_a_deletion(library, model, tokenizer, settings, tmp_path):
    delete_from_library(library, 2)
    more = write_files(tmp_path / "more", 2, large=None)
    read(library, model, tokenizer, settings, [more], new=False)
    assert deleted(library) == [2] and len(open_memory(library).documents) == 8
