"""Token shards: what is written is what is read, and damage is named."""

import json
import pickle
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from gcattn.data import ShardDataset, TokenShards, TokenShardWriter, load_tokenizer


def test_documents_decode_to_the_texts(shards, tokenizer, texts):
    assert shards.num_documents == len(texts)
    for number, text in enumerate(texts):
        assert tokenizer.decode(shards.document(number)) == text
        assert shards.document_num_bytes(number) == len(text.encode())
    assert shards.num_bytes == sum(len(text.encode()) for text in texts)


def test_every_document_ends_with_one_end_of_text_token_and_holds_no_special_token(shards):
    stored = shards.tokens(0, shards.num_tokens)
    ends = np.flatnonzero(stored == shards.eos_token_id)
    assert ends.tolist() == (shards.document_starts[1:] - 1).tolist()
    assert stored.max() < shards.vocab_size - 1


def test_manifest_states_vocabulary_and_tokenizer(shards, tokenizer):
    assert shards.vocab_size == shards.num_text_ids == 16383
    assert shards.tokenizer_name == "gcattn-books-16k"
    assert load_tokenizer(shards.tokenizer_folder).get_vocab() == tokenizer.get_vocab()


def test_document_is_a_view_of_the_mapped_file(shards):
    document = shards.document(3)
    assert document.dtype == np.uint16
    assert not document.flags.owndata
    assert not document.flags.writeable


@given(data=st.data())
def test_any_range_of_tokens_reads_across_shards(shards, data):
    everything = shards.tokens(0, shards.num_tokens)
    start = data.draw(st.integers(0, shards.num_tokens))
    stop = data.draw(st.integers(start, shards.num_tokens))
    assert shards.tokens(start, stop).tolist() == everything[start:stop].tolist()


def test_a_range_outside_is_an_index_error(shards):
    for start, stop in ((-1, 2), (0, shards.num_tokens + 1), (3, 2)):
        with pytest.raises(IndexError, match="outside"):
            shards.tokens(start, stop)
    with pytest.raises(IndexError, match=r"outside \[0, 5\)"):
        shards.document(5)


def test_pickle_holds_the_folder_and_not_the_tokens(shards):
    state = pickle.dumps(shards)
    assert len(state) < 1000
    assert pickle.loads(state).document(0).tolist() == shards.document(0).tolist()


def test_a_vocabulary_past_two_bytes_is_stored_in_four(tmp_path):
    words = {f"word{number}": number for number in range(70_001)}
    larger = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="word0")), eos_token="word1"
    )
    with TokenShardWriter(tmp_path / "out", larger, "larger") as writer:
        writer.append(np.array([5, 70_000]), 2)
    shards = TokenShards(tmp_path / "out")
    assert shards.document(0).tolist() == [5, 70_000]
    assert shards.document(0).dtype == np.uint32


def test_ids_that_the_tokenizer_does_not_have_are_never_written(tokenizer, tmp_path):
    for token_ids in ([5, 2**16 + 5], [-1]):
        with (
            pytest.raises(ValueError, match=r"token_ids must lie in \[0, \d+\)"),
            TokenShardWriter(tmp_path / "out", tokenizer, "name") as writer,
        ):
            writer.append(np.array(token_ids), 2)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def copy(shards, tmp_path):
    """A copy of the shards to damage, without checksums: what is wrong shows all the same."""
    return shutil.copytree(
        shards.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("manifest.json")
    )


@pytest.mark.parametrize(
    "name", ["shard_00001.bin", "documents.bin", "index.json", "tokenizer/tokenizer_config.json"]
)
def test_a_flipped_bit_anywhere_is_noticed(shards, tmp_path, name):
    file = shutil.copytree(shards.folder, tmp_path / "copy") / name
    content = bytearray(file.read_bytes())
    # in the name of the tokenizer, or the low byte of a token
    place = content.index(b"books") if name == "index.json" else (len(content) // 2) & ~1
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} (has changed|is damaged)"):
        TokenShards(tmp_path / "copy")


def test_of_a_large_corpus_small_files_alone_are_hashed(shards, tmp_path, monkeypatch):
    copy = shutil.copytree(shards.folder, tmp_path / "copy")
    monkeypatch.setattr("gcattn.data.token_shards.SMALL_BYTES", 100)
    hashed = []
    monkeypatch.setattr(
        "gcattn.data.token_shards.check_folder",
        lambda folder, hash_up_to: hashed.append(hash_up_to),
    )
    TokenShards(copy)
    pickle.loads(pickle.dumps(TokenShards(copy)))
    assert hashed == [2**24, 2**24]


def test_a_folder_without_checksums_opens(copy, shards):
    assert TokenShards(copy).num_tokens == shards.num_tokens


@pytest.mark.parametrize("name", ["shard_00001.bin", "documents.bin"])
def test_a_truncated_file_is_named(copy, name):
    file = copy / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{name} is damaged: expected \d+ bytes, found \d+"):
        TokenShards(copy)


def test_a_missing_shard_is_named(copy):
    (copy / "shard_00000.bin").unlink()
    with pytest.raises(ValueError, match=r"shard_00000\.bin is missing"):
        TokenShards(copy)


def test_scrambled_document_bounds_are_noticed(copy):
    file = copy / "documents.bin"
    bounds = np.fromfile(file, dtype="<i8").reshape(-1, 2)
    bounds[1], bounds[2] = bounds[2].copy(), bounds[1].copy()
    bounds.tofile(file)
    with pytest.raises(ValueError, match=r"documents\.bin is damaged"):
        TokenShards(copy)


@pytest.mark.parametrize("change", ["first", "empty document", "inside a shard"])
def test_document_bounds_that_cannot_be_are_noticed(copy, change):
    file = copy / "documents.bin"
    bounds = np.fromfile(file, dtype="<i8").reshape(-1, 2)
    if change == "first":
        bounds[0] = 1
    elif change == "empty document":
        bounds[2, 0] = bounds[1, 0]
    else:
        bounds[1:-1, 0] += 1
    bounds.tofile(file)
    with pytest.raises(ValueError, match=r"documents\.bin is damaged"):
        TokenShards(copy)


def test_an_id_beyond_the_vocabulary_is_named_wherever_it_is_read(copy):
    file = copy / "shard_00001.bin"
    ids = np.fromfile(file, dtype="<u2")
    ids[2] = 50_000
    ids.tofile(file)
    damaged = TokenShards(copy)
    place = damaged.document_starts[np.searchsorted(damaged.document_starts, 15)] + 2
    message = rf"copy is damaged: token {place} has the id 50000, beyond the vocabulary of \d+"
    number = int(np.searchsorted(damaged.document_starts, place, side="right")) - 1
    for read in (
        damaged.check_ids,
        lambda: damaged.document(number),
        lambda: damaged.tokens(0, damaged.num_tokens),
        lambda: ShardDataset(damaged, int(place) + 5)[0],
    ):
        with pytest.raises(ValueError, match=message):
            read()
    assert len(damaged.tokens(0, int(place))) == place


def test_another_tokenizer_is_noticed(copy):
    (copy / "tokenizer/tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not the tokenizer that encoded"):
        TokenShards(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "its format is not"),
        ({"version": 2}, "has version 2, this release reads 1"),
        ({"num_tokens": 3}, "not the sum of shard_num_tokens"),
        ({"num_tokens": "3"}, "num_tokens must be int"),
        ({"dtype": "int8"}, "dtype must be uint16 or uint32"),
        ({"colour": "red"}, "missing or unknown fields: colour"),
        ({"shard_num_tokens": ["a"]}, "shard_num_tokens must be positive integers"),
        ({"shard_num_tokens": [True]}, "shard_num_tokens must be positive integers"),
        ({"shard_num_tokens": [10**30, -(10**30)]}, "shard_num_tokens must be positive integers"),
        ({"num_documents": -1}, "num_documents must be at least 0"),
        ({"eos_token_id": 10**9}, "eos_token_id is beyond the vocabulary"),
    ],
)
def test_a_wrong_manifest_is_named(copy, change, message):
    file = copy / "index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ValueError, match=rf"index\.json .*{message}"):
        TokenShards(copy)


def test_a_half_written_manifest_is_named(copy):
    (copy / "index.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"index\.json is damaged: .*nested too deeply"):
        TokenShards(copy)
    (copy / "index.json").write_text('{"format"')
    with pytest.raises(ValueError, match=r"index\.json is damaged: not valid JSON"):
        TokenShards(copy)


def test_a_folder_without_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not a folder of token shards.*gcattn data prep"):
        TokenShards(tmp_path)


def test_a_document_without_its_end_is_found(copy):
    assert TokenShards(copy).check_ends() is None
    file = copy / "shard_00001.bin"
    ids = np.fromfile(file, dtype="<u2")
    ids[-1] = 7
    ids.tofile(file)
    with pytest.raises(ValueError, match=r"token \d+ ends a document and is not the end-of-text"):
        TokenShards(copy).check_ends()
