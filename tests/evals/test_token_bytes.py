"""Claims about bytes per token."""

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from gcattn.data import load_tokenizer
from gcattn.evals.token_bytes import token_byte_lengths


@pytest.mark.parametrize("text", ["It was so.", "  naïve — “öß”\n\n\t", "日本語 and 🦉!", "\x00 é"])
def test_bytes_of_the_tokens_are_the_bytes_of_the_text(text):
    tokenizer = load_tokenizer()
    token_ids = tokenizer(text).input_ids
    assert int(token_byte_lengths(tokenizer)[token_ids].sum()) == len(text.encode())


def test_special_tokens_have_no_bytes():
    tokenizer = load_tokenizer()
    lengths = token_byte_lengths(tokenizer)
    assert lengths[tokenizer.all_special_ids].tolist() == [0] * len(tokenizer.all_special_ids)
    assert int((lengths == 0).sum()) == len(
        {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    )


def word_tokenizer(decoder):
    backend = Tokenizer(models.WordLevel({"<0x0A>": 0, "▁é": 1, "</s>": 2}, unk_token="</s>"))
    if decoder is not None:
        backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def test_byte_fallback_and_spaces_count_as_text():
    fallback = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    assert token_byte_lengths(word_tokenizer(fallback)).tolist() == [1, 3, 0]


def test_a_tokenizer_that_loses_text_is_refused():
    with pytest.raises(ValueError, match="decoder is WordPiece"):
        token_byte_lengths(word_tokenizer(decoders.WordPiece()))
    with pytest.raises(ValueError, match="decoder is missing"):
        token_byte_lengths(word_tokenizer(None))
