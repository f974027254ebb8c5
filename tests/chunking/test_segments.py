"""Segments are whole chunks, of about the length that was asked for."""

import pytest

from gcattn.chunking import whole_chunks
from gcattn.chunking.segments import MORE


@pytest.mark.parametrize(
    ("asked", "found"), [(65536, 65583), (16384, 16443), (63, 63), (126, 126), (64, 63), (5, 5)]
)
def test_a_segment_is_whole_chunks_and_little_longer_than_asked(asked, found):
    assert whole_chunks(asked, 64) == found
    assert found <= (1 + MORE) * asked


def test_a_text_of_one_segment_is_read_in_one_call():
    for length in (2**n for n in range(10, 21)):
        assert whole_chunks(length, 64) >= length
