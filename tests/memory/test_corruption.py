"""A memory that anything but its writer has changed is refused in one line and never answers."""

import random
import shutil

import pytest
import torch

from gcattn import DRTCache, MemoryWriter, load_cache, open_memory, save_cache
from gcattn.memory.saved import description
from gcattn.storage.full_disk import DiskFullError
from gcattn.testing import random_config, random_model, random_tokens

KINDS = ["flip", "flip", "flip", "truncate", "lengthen", "swap", "lose", "model", "version"]


@pytest.fixture(scope="module")
def model():
    return random_model(random_config(3, chunk_size=6, window_size=7))


@pytest.fixture(scope="module")
def other_model(model):
    return random_model(model.config, seed=1)


def write(folder, model, seed, **kwargs):
    with torch.no_grad(), MemoryWriter(folder, model, part_bytes=1, **kwargs) as writer:
        for n in range(4):
            ids = random_tokens(model.config, 1, 23 + n, seed + n)
            breaks = torch.zeros_like(ids, dtype=torch.bool)
            breaks[:, -1] = True
            got = model.model.encode_chunks(ids, chunk_breaks=breaks)
            writer.begin(f"text {n}")
            writer.append(got.landmarks[0], got.keys[0], got.values[0], got.lengths[0], ids[0])
            writer.end()
            writer.checkpoint()
    return folder


@pytest.fixture(scope="module")
def sources(model, other_model, tmp_path_factory):
    """Make the memory that is damaged, one of other weights, and one of another version."""
    place = tmp_path_factory.mktemp("memories")
    write(place / "whole", model, seed=0)
    write(place / "model", other_model, seed=0)
    shutil.copytree(place / "whole", place / "version")
    described = description.read_description(place / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(description, "VERSION", 4)
        description.write_description(place / "version", described)
    return place


def corrupt(folder, sources, kind, draw):
    """Damage a copy of the memory; returns what was done, for the report."""
    if kind in ("model", "version"):
        shutil.rmtree(folder)
        shutil.copytree(sources / kind, folder)
        return kind
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = draw.choice(files)
    data = bytearray(file.read_bytes())
    at = draw.randrange(len(data))
    if kind == "flip":
        data[at] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
    elif kind == "truncate":
        file.write_bytes(data[:at])
    elif kind == "lengthen":
        file.write_bytes(data + bytes([draw.randrange(256)]) * draw.randrange(1, 99))
    elif kind == "swap":
        first, second = draw.sample([path for path in files if path.suffix == ".safetensors"], 2)
        moved = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(moved)
    elif kind == "lose":
        file.unlink()
    return f"{kind} {file.name} at {at} of {len(data)}"


def answer(folder, model, ids, form="exact"):
    cache = DRTCache(model.config, memory=open_memory(folder, landmarks=form))
    with torch.no_grad():
        return model(ids, past_key_values=cache).logits


def check_refused(model, sources, tmp_path, seeds, form):
    ids = random_tokens(model.config, 1, 30, seed=9)
    for seed in seeds:
        draw = random.Random(seed)
        folder = tmp_path / str(seed)
        shutil.copytree(sources / "whole", folder)
        done = corrupt(folder, sources, KINDS[seed % len(KINDS)], draw)
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            pytest.fail(f"{done}: answered {answer(folder, model, ids, form)}")
        assert "\n" not in str(error.value), done
        shutil.rmtree(folder)


def check_lazily(model, sources, tmp_path, seeds, form):
    ids = random_tokens(model.config, 1, 30, seed=9)
    expected, num_answers = answer(sources / "whole", model, ids, form), 0
    for seed in seeds:
        folder = tmp_path / str(seed)
        shutil.copytree(sources / "whole", folder)
        done = corrupt(folder, sources, KINDS[seed % len(KINDS)], random.Random(seed))
        try:
            found = answer(folder, model, ids, form)
        except (ValueError, FileNotFoundError) as error:
            assert "\n" not in str(error), done
        else:
            # what was damaged took no part in the answer, and whoever looks finds it
            assert torch.equal(found, expected), done
            with pytest.raises(ValueError, match="damaged"):
                open_memory(folder).verify()
            num_answers += 1
        shutil.rmtree(folder)
    return num_answers


def test_a_whole_memory_answers(model, sources):
    assert answer(sources / "whole", model, random_tokens(model.config, 1, 30)).isfinite().all()


def test_a_sample_of_corruptions_is_refused_and_none_answers(model, sources, tmp_path):
    check_refused(model, sources, tmp_path, range(27), "exact")


def test_what_is_read_late_is_refused_before_it_answers(model, sources, tmp_path, monkeypatch):
    monkeypatch.setattr("gcattn.memory.saved.memory.CHECKED_AT_ONCE", -1)
    check_lazily(model, sources, tmp_path, range(27), "exact")


def test_every_piece_of_the_landmarks_is_checked(model, sources, tmp_path, monkeypatch):
    monkeypatch.setattr("gcattn.memory.saved.memory.CHECKED_AT_ONCE", -1)
    ids = random_tokens(model.config, 1, 30, seed=9)
    expected = answer(sources / "whole", model, ids)
    monkeypatch.setattr("gcattn.memory.saved.part.PIECE_BYTES", 40)
    assert torch.equal(answer(sources / "whole", model, ids), expected)
    shutil.copytree(sources / "whole", tmp_path / "memory")
    memory = open_memory(tmp_path / "memory")
    part = memory._files.parts[0]
    whole = part.file.read_bytes()
    size = part.num_chunks * part.landmark_size * memory._files.dtype.itemsize
    assert size > 4 * 40
    for at in (*range(0, size, 37), size - 1):
        changed = bytearray(whole)
        changed[part.entry.head_bytes + at] ^= 1
        part.file.write_bytes(changed)
        with pytest.raises(ValueError, match="its landmarks have changed since then"):
            answer(tmp_path / "memory", model, ids)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["exact", "int8"])
def test_300_corruptions_are_refused_and_none_answers(form, model, sources, tmp_path):
    check_refused(model, sources, tmp_path, range(300), form)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["exact", "int8"])
def test_300_corruptions_read_late_change_no_answer(form, model, sources, tmp_path, monkeypatch):
    monkeypatch.setattr("gcattn.memory.saved.memory.CHECKED_AT_ONCE", -1)
    assert check_lazily(model, sources, tmp_path, range(300), form) < 150


@pytest.mark.parametrize("tier", ["disk", "device", "host", "host-int8", "recompute"])
def test_every_tier_refuses_chunks_that_have_changed(tier, model, sources, tmp_path, monkeypatch):
    monkeypatch.setattr("gcattn.memory.saved.memory.CHECKED_AT_ONCE", -1)
    shutil.copytree(sources / "whole", tmp_path / "memory")
    for file in (tmp_path / "memory" / "parts").iterdir():
        data = bytearray(file.read_bytes())
        tokens = 2 * sum(23 + n for n in range(4) if f"{n}." in file.name)
        at = len(data) - 1 if tier == "recompute" else len(data) - tokens - 1
        data[at] ^= 1  # the last token id, or the last byte of the last chunk
        file.write_bytes(data)
    memory = open_memory(tmp_path / "memory", tier)
    with pytest.raises(ValueError, match="have changed since then"):
        memory.bind(model)
        numbers = torch.arange(memory.num_chunks)
        memory.reader.gather(numbers)


def test_a_file_cut_off_while_it_is_read_is_an_error_and_no_crash(
    model, sources, tmp_path, monkeypatch
):
    monkeypatch.setattr("gcattn.memory.saved.memory.CHECKED_AT_ONCE", -1)
    shutil.copytree(sources / "whole", tmp_path / "memory")
    memory = open_memory(tmp_path / "memory")
    memory.bind(model)
    for file in (tmp_path / "memory" / "parts").iterdir():
        file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"ends too early|have changed"):
        memory.reader.gather(torch.arange(memory.num_chunks))


def test_a_changed_saved_stream_is_refused(model, tmp_path):
    cache = DRTCache(model.config)
    with torch.no_grad():
        model(random_tokens(model.config, 2, 40), past_key_values=cache)
    save_cache(cache, tmp_path / "stream")
    for seed in range(20):
        folder = tmp_path / str(seed)
        shutil.copytree(tmp_path / "stream", folder)
        if seed % 2:  # without the checksums of the folder
            (folder / "manifest.json").unlink()
        done = corrupt(folder, tmp_path, "flip", random.Random(seed))
        with pytest.raises(ValueError) as error:
            pytest.fail(f"{done}: loaded {load_cache(folder, model.config)}")
        assert "\n" not in str(error.value), done


def test_a_full_disk_is_one_line_and_the_memory_is_as_it_was(model, small_disk):
    folder = small_disk(120) / "memory"
    with pytest.raises(DiskFullError, match="The disk is full") as error:
        for seed in range(0, 99, 4):
            write_more(folder, model, seed)
    assert "\n" not in str(error.value)
    memory = open_memory(folder)
    assert memory.num_chunks and len(memory.documents) % 4 == 0
    assert answer(folder, model, random_tokens(model.config, 1, 30)).isfinite().all()


def write_more(folder, model, seed):
    with torch.no_grad(), MemoryWriter(folder, model) as writer:
        for n in range(4):
            ids = random_tokens(model.config, 1, 25, seed + n)
            got = model.model.encode_chunks(ids)
            writer.begin(f"text {seed + n}")
            writer.append(got.landmarks[0], got.keys[0], got.values[0], got.lengths[0], ids[0])
            writer.end()
