"""A memory that is written document by document and opened again is what was written."""

import pytest
import torch
from safetensors.torch import load_file

from gcattn import MemoryWriter, open_memory
from gcattn.memory.saved import Document
from gcattn.memory.saved.part import Part
from gcattn.memory.stream import ReadingStream
from gcattn.testing import random_config, random_model, random_tokens


@pytest.fixture(scope="module")
def model():
    return random_model(random_config(3, chunk_size=6))


def chunks_of(model, seed, num_tokens):
    """Read a text of its own; returns the arguments of `append`."""
    ids = random_tokens(model.config, 1, num_tokens, seed)
    breaks = torch.zeros_like(ids, dtype=torch.bool)
    breaks[:, -1] = True
    got = model.model.encode_chunks(ids, chunk_breaks=breaks)
    return got.landmarks[0], got.keys[0], got.values[0], got.lengths[0], ids[0]


def write(folder, model, lengths, **kwargs):
    texts = [chunks_of(model, seed, n) for seed, n in enumerate(lengths)]
    with MemoryWriter(folder, model, **kwargs) as writer:
        for n, text in enumerate(texts):
            writer.begin(f"text {n}", size=n)
            writer.append(*text)
            writer.end()
            writer.checkpoint({"next": n + 1})
    return texts


@pytest.mark.parametrize("part_bytes", [1, 6000, 10**9])
def test_what_is_written_is_read(model, part_bytes, tmp_path):
    lengths = [13, 1, 40, 5, 6]
    texts = write(tmp_path / "memory", model, lengths, part_bytes=part_bytes)
    memory = open_memory(tmp_path / "memory")
    memory.check(model)
    assert [document.num_tokens for document in memory.documents] == lengths
    assert memory.documents[2].name == "text 2" and memory.documents[2].notes == {"size": 2}
    chunk = 0
    for n, (*_, counts, ids) in enumerate(texts):
        for first, count in zip(counts.cumsum(0) - counts, counts, strict=True):
            passage = memory.passage(chunk)
            assert (passage.document.number, passage.first_token) == (n, first)
            assert torch.equal(passage.token_ids, ids[first : first + count])
            chunk += 1
    assert chunk == memory.num_chunks
    whole = torch.cat([ids for *_, ids in texts])
    assert torch.equal(memory.token_ids(0, chunk), whole)


def test_parts_are_safetensors_files_that_anyone_reads(model, tmp_path):
    texts = write(tmp_path / "memory", model, [13, 9])
    tensors = load_file(tmp_path / "memory" / "parts" / "000000.safetensors")
    for name, column in (("landmarks", 0), ("lengths", 3), ("token_ids", 4)):
        expected = torch.cat([text[column] for text in texts])
        assert torch.equal(tensors[name].to(expected.dtype), expected)
    pool = torch.stack([torch.cat([text[i] for text in texts]) for i in (1, 2)], dim=1)
    assert torch.equal(tensors["chunks"], pool)


def test_a_document_may_go_on_in_the_next_part(model, tmp_path):
    pieces = [chunks_of(model, seed, 20) for seed in range(5)]
    with MemoryWriter(tmp_path, model, part_bytes=1) as writer:
        writer.begin("long")
        for n, piece in enumerate(pieces):
            writer.append(*piece)
            assert writer.checkpoint(n)
        writer.end()
    memory = open_memory(tmp_path)
    assert list(memory.documents) == [Document(0, "long", {}, 0, 20, 100, False)]
    assert memory.passage(11).first_token == 55
    assert torch.equal(memory.token_ids(0, 20), torch.cat([ids for *_, ids in pieces]))


def test_ids_of_chunks_in_a_row_are_read_once_for_each_part(model, tmp_path, monkeypatch):
    pieces = [chunks_of(model, seed, 20) for seed in range(3)]
    with MemoryWriter(tmp_path, model, part_bytes=1) as writer:
        writer.begin("long")
        for piece in pieces:
            writer.append(*piece)
            writer.checkpoint()
        writer.end()
    memory, reads = open_memory(tmp_path), []
    read = Part.token_ids
    monkeypatch.setattr(Part, "token_ids", lambda *where: reads.append(where[1:]) or read(*where))
    numbers = [0, 1, 3, 4, 5, 6]  # four chunks a part
    texts = memory._files.texts(numbers)
    assert reads == [(0, 2), (3, 4), (0, 3)]
    assert all(
        torch.equal(text, memory.token_ids(n, n + 1))
        for n, text in zip(numbers, texts, strict=True)
    )


def test_a_killed_writer_is_gone_on_from_the_last_part(model, tmp_path):
    pieces = [chunks_of(model, seed, 20) for seed in range(5)]
    writer = MemoryWriter(tmp_path, model, part_bytes=1)
    writer.begin("long", size=100)
    for n, piece in enumerate(pieces[:3]):
        writer.append(*piece)
        writer.checkpoint(n + 1)
    writer.append(*pieces[3])
    writer.__exit__(KeyboardInterrupt)  # what a killed process leaves
    (tmp_path / "parts" / "000003.safetensors").write_bytes(b"half a part")
    with MemoryWriter(tmp_path, model, part_bytes=1) as writer:
        assert writer.cursor == 3
        assert writer.unfinished == Document(0, "long", {"size": 100}, 0, 12, 60, False)
        for n, piece in enumerate(pieces[writer.cursor :], 3):
            writer.append(*piece)
            writer.checkpoint(n + 1)
        writer.end()
    memory = open_memory(tmp_path)
    assert list(memory.documents) == [Document(0, "long", {"size": 100}, 0, 20, 100, False)]
    assert torch.equal(memory.token_ids(0, 20), torch.cat([ids for *_, ids in pieces]))


def test_deleted_documents_stay_listed(model, tmp_path):
    write(tmp_path, model, [13, 1, 40, 5, 6])
    with MemoryWriter(tmp_path, model) as writer:
        writer.delete([3, 1, 2])
        with pytest.raises(IndexError, match="has no document 5"):
            writer.delete([5])
    assert [d.is_deleted for d in open_memory(tmp_path).documents] == [0, 1, 1, 1, 0]


def test_a_text_read_in_segments_gives_the_chunks_of_the_text(model):
    ids = random_tokens(model.config, 2, 50)
    whole, stream, parts = model.model.encode_chunks(ids), ReadingStream(model.config), []
    for piece in ids.split(17, dim=1):
        parts.append(model.model.encode_chunks(piece, stream=stream))
    for name in ("landmarks", "keys", "values", "lengths"):
        found = torch.cat([getattr(part, name) for part in parts], dim=1)
        torch.testing.assert_close(found, getattr(whole, name), rtol=0, atol=1e-10)


def test_a_memory_of_other_weights_or_sizes_is_refused(model, tmp_path):
    write(tmp_path, model, [13])
    memory = open_memory(tmp_path)
    with pytest.raises(ValueError, match="was made by other weights"):
        memory.check(random_model(model.config, seed=1))
    with pytest.raises(ValueError, match="was made by other weights"):
        MemoryWriter(tmp_path, random_model(model.config, seed=1))
    with pytest.raises(ValueError, match="a model with chunk_size = 6, this one has 7"):
        memory.check(random_model(random_config(3, chunk_size=7)))
    MemoryWriter(tmp_path, model).close()  # a refusal leaves no lock


def test_upper_layers_may_change_and_lower_weights_may_not(model, tmp_path):
    write(tmp_path, model, [13])
    memory, other = open_memory(tmp_path), random_model(model.config)
    with torch.no_grad():
        for weight in other.model.retrieval_groups.parameters():
            weight.add_(1)
        memory.check(other.float())
        other.model.lower_layers[0].mlp_norm.weight[0] = 3
        with pytest.raises(ValueError, match="was made by other weights"):
            memory.check(other)
