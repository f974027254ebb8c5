"""The shipped tokenizer: lossless, with two special tokens that no text can forge."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcattn.data import load_tokenizer

SPECIAL_TOKENS = ["<|endoftext|>", "<|pad|>"]


def test_special_tokens_have_the_promised_ids(tokenizer):
    assert len(tokenizer) == tokenizer.vocab_size == 16383
    assert tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS) == [0, 1]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1)
    assert set(tokenizer.all_special_ids) == {0, 1}


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(parts=st.lists(st.sampled_from([*SPECIAL_TOKENS, "a", " ", "<|", "|>"])))
def test_special_tokens_spelled_out_stay_plain_characters(tokenizer, parts):
    text = "".join(parts)
    token_ids = tokenizer(text).input_ids
    assert not set(token_ids) & {0, 1}
    assert tokenizer.decode(token_ids) == text


def test_digits_are_tokens_of_their_own(tokenizer):
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("48213")) == list("48213")


def test_saved_and_loaded_tokenizer_is_the_tokenizer(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    text = "Call me <|pad|> 1851."
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.get_vocab() == tokenizer.get_vocab()


def test_missing_tokenizer_is_one_clear_line_and_no_hub_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", pytest.fail)
    with pytest.raises(FileNotFoundError, match=r"No tokenizer at .*expected a folder") as caught:
        load_tokenizer(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


def test_tokenizer_without_end_of_text_is_refused(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|pad|>"}'
    )
    with pytest.raises(ValueError, match="no eos_token"):
        load_tokenizer(tmp_path)


def test_missing_padding_token_becomes_the_end_of_text(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}'
    )
    assert load_tokenizer(tmp_path).pad_token_id == 0


@pytest.mark.parametrize("damage", ["merge", "text", "list"])
def test_a_damaged_tokenizer_is_one_line_that_names_it(tokenizer, tmp_path, damage):
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    state["model"]["merges"].append(["漢", "字"])
    content = {"merge": json.dumps(state), "text": '{"model"', "list": "[]"}[damage]
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"The tokenizer .* is damaged: .") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_length_that_is_no_number_is_refused(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": "x"}))
    with pytest.raises(ValueError, match="model_max_length must be a number, got 'x'"):
        load_tokenizer(tmp_path)
