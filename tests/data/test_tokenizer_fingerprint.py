"""Claims about the tokenizers of shards and models: the same one, or one line."""

import json

import pytest

from gcattn.data import TokenShards, load_tokenizer, prepare_shards, train_tokenizer
from gcattn.data.tokenizer_checks import check_same_tokenizer, check_tokenizer_of_model
from gcattn.data.tokenizer_fingerprint import (
    num_text_ids,
    tokenizer_fingerprint,
)

LETTERS = "the cat and the hat and the bat sat on the mat in the rain of autumn " * 3
OTHER_LETTERS = "zwölf boxkämpfer jagen viktor quer über den großen sylter deich " * 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two tokenizers of the same size that were trained on different texts."""
    place = tmp_path_factory.mktemp("tokenizers")
    texts = {"one": LETTERS, "other": OTHER_LETTERS}
    return {name: train_tokenizer([text], 280, place / name) for name, text in texts.items()}


@pytest.fixture(scope="module")
def shards(folders, jsonl, tmp_path_factory):
    place = tmp_path_factory.mktemp("shards")
    return {n: prepare_shards(str(jsonl), place / n, tokenizer=f) for n, f in folders.items()}


def test_saving_anew_keeps_the_fingerprint(folders, tmp_path):
    loaded = load_tokenizer(folders["one"])
    first = tokenizer_fingerprint(loaded)
    for turn in range(2):
        loaded.save_pretrained(tmp_path / str(turn))
        loaded = load_tokenizer(tmp_path / str(turn))
        assert tokenizer_fingerprint(loaded) == first


def test_encoding_keeps_the_fingerprint(shards, folders):
    assert shards["one"].tokenizer_fingerprint == tokenizer_fingerprint(
        load_tokenizer(folders["one"])
    )


def test_a_landmark_that_the_tokenizer_lists_changes_nothing(folders, tmp_path):
    state = json.loads((folders["one"] / "tokenizer.json").read_text(encoding="utf-8"))
    state["model"]["vocab"]["<|landmark|>"] = 280
    token = {**state["added_tokens"][0], "id": 280, "content": "<|landmark|>"}
    state["added_tokens"].append(token)
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    config = json.loads((folders["one"] / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["extra_special_tokens"] = ["<|landmark|>"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    listing = load_tokenizer(tmp_path)
    assert len(listing) == num_text_ids(listing) + 1 == 281
    assert tokenizer_fingerprint(listing) == tokenizer_fingerprint(load_tokenizer(folders["one"]))


@pytest.mark.parametrize("part", ["vocab", "merges", "pre_tokenizer", "added_tokens"])
def test_whatever_changes_ids_changes_the_fingerprint(folders, tmp_path, part):
    state = json.loads((folders["one"] / "tokenizer.json").read_text(encoding="utf-8"))
    if part == "vocab":
        vocabulary = state["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    elif part == "merges":
        state["model"]["merges"].reverse()
    elif part == "pre_tokenizer":
        state["pre_tokenizer"] = state["pre_tokenizer"]["pretokenizers"][1]
    else:
        state["added_tokens"].append({**state["added_tokens"][0], "id": 280, "content": "<|x|>"})
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    config = (folders["one"] / "tokenizer_config.json").read_text(encoding="utf-8")
    (changed / "tokenizer_config.json").write_text(config, encoding="utf-8")
    original = tokenizer_fingerprint(load_tokenizer(folders["one"]))
    assert tokenizer_fingerprint(load_tokenizer(changed)) != original


def test_data_of_another_tokenizer_of_the_same_size_are_refused(shards, folders):
    check_tokenizer_of_model(shards["one"], str(folders["one"]))
    check_same_tokenizer(shards["one"], TokenShards(shards["one"].folder))
    with pytest.raises(ValueError, match=r"another tokenizer \(.*one\) than that of the model"):
        check_tokenizer_of_model(shards["one"], str(folders["other"]))
    with pytest.raises(ValueError, match="different tokenizers"):
        check_same_tokenizer(shards["one"], shards["other"])


def test_a_model_without_a_tokenizer_passes_with_a_warning(shards, tmp_path, caplog):
    check_tokenizer_of_model(shards["one"], str(tmp_path))
    assert "has no tokenizer.json" in caplog.text
