"""Memories are joined, and rid of what was deleted, and hold what they held."""

import os

import pytest
import torch

from gcattn import MemoryWriter, export_memory, merge_memories, open_memory
from gcattn.memory.saved.part import Part
from gcattn.storage.manifest import DamagedFolderError
from gcattn.testing import random_config, random_model, random_tokens


@pytest.fixture(scope="module")
def model():
    return random_model(random_config(3, chunk_size=6))


def write(folder, model, lengths, first_seed=0, **kwargs):
    """Write documents of so many segments of 12 tokens each."""
    with MemoryWriter(folder, model, part_bytes=4000, **kwargs) as writer:
        for n, count in enumerate(lengths):
            writer.begin(f"text {first_seed + n}", kind="text")
            for segment in range(count):
                ids = random_tokens(model.config, 1, 10, 100 * (first_seed + n) + segment)
                got = model.base_model.encode_chunks(ids)
                writer.append(got.landmarks[0], got.keys[0], got.values[0], got.lengths[0], ids[0])
                writer.checkpoint({"at": n})
            writer.end()
    return folder


def content(folder):
    """Return each document that is not deleted: its name, token ids and chunks."""
    memory = open_memory(folder)
    chunks = []
    for entry in memory.description.parts:
        part = Part(folder, entry)
        held = torch.zeros(part.num_chunks, 1)
        if part.has_keys_values:
            pool = torch.empty(part.num_chunks, *part.chunk_shape, dtype=part.dtype_of("chunks"))
            for number in range(part.num_chunks):
                part.read_chunk(number, pool[number])
            held = pool.flatten(1)
        landmarks = torch.empty(
            part.num_chunks,
            memory.description.model["hidden_size"],
            dtype=part.dtype_of("landmarks"),
        )
        part.read_landmarks(landmarks)
        chunks.append(torch.cat([landmarks, held], dim=1))
    whole = torch.cat(chunks)
    found = {}
    for document in memory.documents:
        if not document.is_deleted:
            first, end = document.first_chunk, document.first_chunk + document.num_chunks
            ids = memory.token_ids(first, end).tolist()
            found[document.name] = (ids, document.notes, whole[first:end].tolist())
    return found


@pytest.mark.parametrize("keys_values", [True, False])
def test_a_merged_memory_holds_the_documents_of_all(keys_values, model, tmp_path):
    kept = {"keys_values": keys_values}
    first = write(tmp_path / "first", model, [3, 0, 7, 1], **kept)
    second = write(tmp_path / "second", model, [2, 9], first_seed=4, **kept)
    with MemoryWriter(second, model, **kept) as writer:
        writer.delete([0])
    merge_memories([first, second], tmp_path / "both")
    assert content(tmp_path / "both") == content(first) | content(second)
    assert [d.is_deleted for d in open_memory(tmp_path / "both").documents] == [0, 0, 0, 0, 1, 0]
    with MemoryWriter(tmp_path / "both", model, **kept) as writer:  # and grows like any other
        assert writer.cursor is None and writer.unfinished is None


@pytest.mark.parametrize("deleted", [[0], [2], [5], [0, 1, 2], [3, 4, 5], [1, 3], list(range(6))])
def test_an_exported_memory_is_rid_of_what_was_deleted(deleted, model, tmp_path):
    folder = write(tmp_path / "memory", model, [3, 0, 7, 1, 2, 9])
    with MemoryWriter(folder, model) as writer:
        writer.delete(deleted)
    export_memory(folder, tmp_path / "rest")
    exported = open_memory(tmp_path / "rest")
    exported.verify()
    assert content(tmp_path / "rest") == content(folder) if len(deleted) < 6 else True
    assert len(exported.documents) == 6 - len(deleted)
    assert not exported.description.deleted


def test_parts_that_are_taken_over_whole_take_no_room(model, tmp_path):
    folder = write(tmp_path / "memory", model, [3, 2])
    export_memory(folder, tmp_path / "rest")
    for file in (tmp_path / "rest" / "parts").iterdir():
        assert os.stat(file).st_nlink == 2


def test_memories_of_other_weights_or_contents_are_not_merged(model, tmp_path):
    first = write(tmp_path / "first", model, [2])
    other = write(tmp_path / "other", random_model(model.config, seed=1), [2])
    with pytest.raises(ValueError, match=r"other cannot be merged: their models' weights differ"):
        merge_memories([first, other], tmp_path / "both")
    small = write(tmp_path / "small", model, [2], keys_values=False)
    with pytest.raises(ValueError, match="one keeps keys and values, the other token ids"):
        merge_memories([first, small], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_what_is_there_is_not_written_over_and_what_a_kill_left_is(model, tmp_path):
    folder = write(tmp_path / "memory", model, [2])
    with pytest.raises(FileExistsError, match="choose another name"):
        merge_memories([folder], folder)
    (tmp_path / "half" / "parts").mkdir(parents=True)
    (tmp_path / "half" / "parts" / "000000.safetensors").write_bytes(b"half a part")
    (tmp_path / "half" / ".memory.json.x1").write_bytes(b"half a description")
    merge_memories([folder], tmp_path / "half")
    assert content(tmp_path / "half") == content(folder)


def test_an_unfinished_or_damaged_memory_is_refused(model, tmp_path):
    folder = write(tmp_path / "memory", model, [2, 2])
    writer = MemoryWriter(tmp_path / "begun", model, part_bytes=1)
    writer.begin("long")
    ids = random_tokens(model.config, 1, 10)
    got = model.base_model.encode_chunks(ids)
    writer.append(got.landmarks[0], got.keys[0], got.values[0], got.lengths[0], ids[0])
    writer.checkpoint()
    writer.__exit__(KeyboardInterrupt)
    with pytest.raises(ValueError, match="finish the build first"):
        merge_memories([folder, tmp_path / "begun"], tmp_path / "both")
    part = min((folder / "parts").iterdir())
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DamagedFolderError):
        export_memory(folder, tmp_path / "rest")
    assert not (tmp_path / "rest" / "memory.json").exists()
