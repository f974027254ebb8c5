"""Claims about the picture of an evaluation."""

import pytest

from gcattn.evals.length_result import Estimate, LengthResult, PositionBucket, bucket_bounds
from gcattn.evals.plot import plot_perplexity


def result(length, num_documents=3, error=0.1):
    buckets = [PositionBucket(*bounds, Estimate(4.0, error)) for bounds in bucket_bounds(length)]
    loss = Estimate(4.0, error)
    return LengthResult(
        length, num_documents, length - 1, loss, 54.6, Estimate(1.2, error), buckets
    )


@pytest.mark.parametrize("lengths", [[2], [17], [1024, 4096, 1_048_576]])
def test_any_lengths_make_a_whole_picture(tmp_path, lengths):
    file = tmp_path / "loss.png"
    plot_perplexity([result(length) for length in lengths], "title", file)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.read_bytes().endswith(b"IEND\xaeB\x60\x82")
    assert list(tmp_path.iterdir()) == [file]


def test_a_single_document_is_drawn_without_error(tmp_path):
    plot_perplexity([result(100, num_documents=1, error=None)], "title", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 0
