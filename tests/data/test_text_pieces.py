"""Claims about cutting texts: the parts have the very ids of the whole, in bounded memory."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from gcattn.data import load_tokenizer, prepare_shards, text_pieces, train_tokenizer
from gcattn.data.text_pieces import TextCutter

# the words of other tokenizers in wide use
WORDS = {
    "three digits": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "one digit": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "cases": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
PARTS = ["a", "the", "Don't", "'s", "I'LL", " ", "  ", "\n", "\n\n", "\r\n", "\t", ".", ",", "...",
         "12", "7", "3.14", "²", "漢", "。", "字", "é", "e\u0301", "\u00a0", "_", "-", "🙂", "/",
         "<|endoftext|>", "<|landmark|>", "<|", "ß", "İ", "\u200b",
         "اب", "ไทย", "가", "ᄀ", "ᅡ"]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PARTS), min_size=5, max_size=60).map("".join)


def other_tokenizer(words, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(words), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # neighbours merge often, so that a cut inside a word would be seen
    texts = ["".join(pair) * 9 for pair in itertools.product(PARTS, repeat=2)]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    trained = train_tokenizer([part * 50 for part in PARTS], 300, tmp_path_factory.mktemp("own"))
    backends = {
        "shipped": load_tokenizer().backend_tokenizer,
        "trained": load_tokenizer(trained).backend_tokenizer,
        "composed": other_tokenizer(WORDS["one digit"], normalizers.NFC()),
    }
    backends |= {name: other_tokenizer(words) for name, words in WORDS.items()}
    for backend in backends.values():
        backend.encode_special_tokens = True
    return backends


NAMES = ["shipped", "trained", "composed", *WORDS]


@pytest.mark.parametrize("name", NAMES)
@given(text=TEXTS)
def test_every_place_to_cut_keeps_the_ids_untried(tokenizers, name, text):
    """The places alone are safe: what is tried out on the way is a second line of defence."""
    backend = tokenizers[name]

    def ids(part):
        return backend.encode(part, add_special_tokens=False).ids

    whole = ids(text)
    for match in text_pieces._PLACES.finditer(text):
        place = match.start()
        assert ids(text[:place]) + ids(text[place:]) == whole


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_long_text_have_the_ids_of_the_whole(tokenizers, name, monkeypatch):
    monkeypatch.setattr(text_pieces, "PART_CHARACTERS", 40)
    backend = tokenizers[name]
    cutter = TextCutter(backend)
    assert cutter.can_cut
    # a hundred orders of the parts, one after the other
    text = "".join("".join(PARTS[i:] + PARTS[:i]) + " and so" * (i % 3) for i in range(39)) * 3
    for size in (1, 17, 1000, len(text)):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        parts = list(cutter.cut(pieces))
        assert "".join(parts) == text
        assert len(parts) > len(text) / 200
        encoded = [backend.encode(part, add_special_tokens=False).ids for part in parts]
        assert list(itertools.chain(*encoded)) == backend.encode(text, add_special_tokens=False).ids


def test_a_tokenizer_that_looks_at_a_text_as_a_whole_gets_it_whole(monkeypatch):
    monkeypatch.setattr(text_pieces, "PART_CHARACTERS", 4)
    text = "one two three four five"
    no_words = Tokenizer(models.BPE())
    prefixed = Tokenizer(models.BPE())
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    metaspace = Tokenizer(models.BPE())
    metaspace.pre_tokenizer = pre_tokenizers.Metaspace()
    unsplit = Tokenizer(models.BPE())
    unsplit.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    across = Tokenizer(models.BPE())
    across.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert TextCutter(across).can_cut
    across.add_tokens(["two three"])
    for tokenizer in (no_words, prefixed, metaspace, unsplit, across):
        assert list(TextCutter(tokenizer).cut([text[:9], text[9:]])) == [text]


def test_a_text_without_the_end_of_a_word_is_cut_with_a_warning(tokenizers, monkeypatch, caplog):
    monkeypatch.setattr(text_pieces, "PART_CHARACTERS", 8)
    monkeypatch.setattr(text_pieces, "MOST_CHARACTERS", 32)
    parts = list(TextCutter(tokenizers["shipped"]).cut(["x" * 20, "x" * 50]))
    assert "".join(parts) == "x" * 70
    assert max(map(len, parts)) <= 32
    assert "without the end of a word" in caplog.text


def test_shards_and_tokenizers_do_not_depend_on_where_texts_are_cut(tmp_path, monkeypatch):
    text = "The wind rose, and 12 men said: it won't do.\nSo they went on to the next town. " * 40
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(text[::-1] if name == "a.txt" else text)
    source, shards, tokenizers = str(tmp_path / "*.txt"), [], []
    for size in (2**16, 100):
        monkeypatch.setattr(text_pieces, "PART_CHARACTERS", size)
        monkeypatch.setattr("gcattn.data.prepare._BATCH_CHARACTERS", 5 * size)
        for module in ("file_readers", "text_column"):
            monkeypatch.setattr(f"gcattn.data.{module}.PIECE", size + 1)
        shards.append(prepare_shards(source, tmp_path / f"shards{size}", shard_tokens=9))
        tokenizers.append(
            train_tokenizer([text, iter([text[:99], text[99:]])], 290, tmp_path / f"{size}")
        )
    one, other = shards
    assert one.num_documents == other.num_documents == 2
    for number in range(2):
        assert one.document(number).tolist() == other.document(number).tolist()
        assert one.document_num_bytes(number) == len(text)
    assert tokenizers[0].joinpath("tokenizer.json").read_bytes() == (
        tokenizers[1].joinpath("tokenizer.json").read_bytes()
    )
