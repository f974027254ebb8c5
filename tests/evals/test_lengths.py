"""Claims about how lengths are read and written."""

import pytest

from gcattn.evals.lengths import format_length, parse_lengths


def test_k_and_m_are_binary_multiples():
    assert parse_lengths("1k,4K, 16k ,1m,500") == [500, 1024, 4096, 16_384, 1_048_576]


@pytest.mark.parametrize("text", ["", "k", "1.5k", "-4", "4kk", "1k,,2k", "four"])
def test_what_is_no_length_is_refused(text):
    with pytest.raises(ValueError, match="must look like 500, 4k or 1m"):
        parse_lengths(text)


@pytest.mark.parametrize("text", ["0", "1", "4k,1"])
def test_a_length_that_predicts_nothing_is_refused(text):
    with pytest.raises(ValueError, match="at least 2 tokens"):
        parse_lengths(text)


def test_the_same_length_twice_is_refused():
    with pytest.raises(ValueError, match="must differ"):
        parse_lengths("1024,1k")


@pytest.mark.parametrize("length", [2, 500, 1000, 1024, 1536, 16_384, 1_048_576, 3_145_728])
def test_a_written_length_reads_as_itself(length):
    assert parse_lengths(format_length(length)) == [length]
