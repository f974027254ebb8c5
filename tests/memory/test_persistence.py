"""A saved and loaded memory is the memory."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gcattn import DRTCache, load_cache, save_cache
from gcattn.memory.former_cache import RENAMED
from gcattn.memory.token_log import UNKNOWN
from gcattn.storage.full_disk import DiskFullError
from gcattn.testing import random_config, random_model, random_tokens

TIERS = ["device", "host", "disk"]


SIZES = {
    "chunk_size": 6,
    "window_size": 7,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_retrieval_groups": 2,
    "num_upper_layers": 4,
}


@pytest.fixture(scope="module")
def model():
    return random_model(random_config(3, **SIZES))


def read_document(model, tier):
    cache = DRTCache(model.config, tier)
    ids = random_tokens(model.config, 2, 95)
    mask = torch.ones_like(ids)
    mask[1, :20] = 0  # rows of unequal length, both ending within a chunk
    with torch.no_grad():
        model(ids, attention_mask=mask, past_key_values=cache)
    return cache


# each tier is saved and loaded once
QUICK = [("device", "host"), ("host", "disk"), ("disk", "device")]


@pytest.mark.parametrize(
    ("tier", "loaded_tier"),
    [
        pytest.param(*pair, marks=[] if pair in QUICK else pytest.mark.slow)
        for pair in product(TIERS, TIERS)
    ],
)
def test_saved_and_loaded_memory_goes_on_bitwise_like_the_memory(
    model, tier, loaded_tier, tmp_path
):
    cache = read_document(model, tier)
    save_cache(cache, tmp_path / "document")
    loaded = load_cache(tmp_path / "document", model.config, memory_tier=loaded_tier)
    assert loaded.get_seq_length() == cache.get_seq_length() == 95
    for token in random_tokens(model.config, 2, 14, seed=1).split(1, dim=1):
        with torch.no_grad():
            expected = model(token, past_key_values=cache).logits
            assert torch.equal(model(token, past_key_values=loaded).logits, expected)


def test_one_saved_document_answers_many_questions(model, tmp_path):
    ids, question = random_tokens(model.config, 1, 50), random_tokens(model.config, 1, 7, seed=2)
    cache = DRTCache(model.config)
    with torch.no_grad():
        model(ids, past_key_values=cache)
    save_cache(cache, tmp_path / "document")
    answers = [
        model.generate(
            torch.cat([ids, question], dim=1),
            cache=load_cache(tmp_path / "document", model.config),
            max_new_tokens=9,
            do_sample=False,
            pad_token_id=60,
        )
        for _ in range(2)
    ]
    assert torch.equal(*answers)


def test_what_cannot_be_saved_or_loaded_is_refused_with_a_reason(model, tmp_path):
    folder = tmp_path / "document"
    with pytest.raises(ValueError, match="The cache is empty"):
        save_cache(DRTCache(model.config), folder)
    save_cache(read_document(model, "device"), folder)
    with pytest.raises(FileExistsError, match="exists already"):
        save_cache(read_document(model, "device"), folder)
    with pytest.raises(FileNotFoundError, match="no saved cache"):
        load_cache(tmp_path, model.config)
    other = random_config(3, **(SIZES | {"chunk_size": 7}))
    with pytest.raises(ValueError, match="a model with chunk_size = 6, this one has 7"):
        load_cache(folder, other)
    memory = folder / "parts" / "000000.safetensors"
    memory.write_bytes(memory.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged"):
        load_cache(folder, model.config)


def test_a_cache_saved_in_format_1_still_loads():
    folder = Path(__file__).parent / "format_1"
    sizes = json.loads((folder / "cache.json").read_text())["model"]
    sizes["vocab_size"] -= 1  # it counted the landmark
    config = random_config(3, landmark_pooling=True, **sizes)
    saved = load_file(folder / "cache.safetensors")
    cache = load_cache(folder, config)
    assert cache.get_seq_length() == 23
    loaded = {
        f"{name}.{key}": x
        for name, state in cache.states().items()
        for key, x in state.tensors().items()
    }
    renamed = {RENAMED.get(name, name): x for name, x in saved.items()}
    assert {name for name in loaded if not name.startswith("log.")} == renamed.keys()
    assert all(torch.equal(loaded[name], x) for name, x in renamed.items())
    assert (loaded["log.ids"] == UNKNOWN).all()
    with torch.no_grad():
        logits = random_model(config)(random_tokens(config, 2, 9), past_key_values=cache).logits
    assert logits.isfinite().all()


def test_a_cache_of_a_later_format_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr("gcattn.memory.saved.description.VERSION", 99)
    save_cache(read_document(model, "device"), tmp_path / "document")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="is of format 'gcattn memory' 99, this gcattn reads"):
        load_cache(tmp_path / "document", model.config)


def test_a_cache_of_other_weights_is_refused(model, tmp_path):
    save_cache(read_document(model, "device"), tmp_path / "document")
    other, ids = random_model(model.config, seed=1), random_tokens(model.config, 2, 3)
    for cache in (load_cache(tmp_path / "document", model.config), read_document(model, "host")):
        with torch.no_grad(), pytest.raises(ValueError, match="was made by other weights"):
            other(ids, past_key_values=cache)
        with torch.no_grad():
            model(ids, past_key_values=cache)


def test_flipped_byte_of_a_saved_cache_names_the_file(model, tmp_path):
    folder = tmp_path / "document"
    save_cache(read_document(model, "device"), folder)
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        data = file.read_bytes()
        for position in range(0, len(data), max(1, len(data) // 40)):
            file.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
            with pytest.raises(ValueError, match=f"{folder}/.*(changed|damaged|missing)") as error:
                load_cache(folder, model.config)
            assert "\n" not in str(error.value)
        file.write_bytes(data)
    load_cache(folder, model.config)


def test_cache_saved_without_checksums_loads(model, tmp_path):
    save_cache(read_document(model, "device"), tmp_path / "document")
    (tmp_path / "document" / "manifest.json").unlink()
    assert load_cache(tmp_path / "document", model.config).get_seq_length() == 95


def test_full_disk_is_said_and_leaves_nothing(model, small_disk):
    """Whichever of the files no longer fits."""
    cache, failures = read_document(model, "device"), 0
    for kilobytes in range(4, 72, 4):
        folder = small_disk(kilobytes) / "document"
        try:
            save_cache(cache, folder)
        except DiskFullError as error:
            assert str(error).startswith(f"The disk is full: {folder}")
            assert list(folder.parent.iterdir()) == []
            failures += 1
        else:
            load_cache(folder, model.config)
    assert 5 < failures < 17
