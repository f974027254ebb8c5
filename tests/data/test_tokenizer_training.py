"""Training of the byte-level BPE."""

import pytest

from gcattn.data import load_tokenizer, train_tokenizer

TEXTS = ["the cat and the hat and the bat sat on the mat\n" * 3, "Ünï 2024, then 1999."]


def test_trained_tokenizer_loads_with_its_special_tokens_first(tmp_path):
    tokenizer = load_tokenizer(train_tokenizer(TEXTS, 270, tmp_path))
    assert len(tokenizer) == tokenizer.vocab_size == 270
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|pad|>"]) == [0, 1]
    assert tokenizer.padding_side == "left"
    text = "the hat 漢字 <|pad|> 42"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("the")) < 3


def test_training_twice_gives_the_same_files(tmp_path):
    folders = [train_tokenizer(TEXTS, 265, tmp_path / name) for name in "ab"]
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()


def test_too_small_a_vocabulary_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 258"):
        train_tokenizer(TEXTS, 257, tmp_path)


def test_more_tokens_than_the_text_supports_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"support \d+ tokens, not 5000"):
        train_tokenizer(TEXTS, 5000, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_is_replaced_only_when_asked(tmp_path):
    train_tokenizer(TEXTS, 265, tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()
    with pytest.raises(FileExistsError, match="holds a tokenizer; pass --overwrite"):
        train_tokenizer(TEXTS, 270, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before
    train_tokenizer(TEXTS, 270, tmp_path, overwrite=True)
    assert len(load_tokenizer(tmp_path)) == 270


def test_the_tokenizer_of_a_model_is_never_replaced(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"holds a model.*choose another --out"):
            train_tokenizer(TEXTS, 265, tmp_path, overwrite=overwrite)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
