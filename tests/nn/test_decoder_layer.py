"""How what was read enters the decoder."""

import torch

from gcattn.nn.decoder_layer import feed_forward_with_retrieval
from gcattn.ops.pointwise import rotary_angles, rotate


def test_gca_output_feeds_mlp_but_not_residual():
    hidden, read = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    out = feed_forward_with_retrieval(hidden, read, lambda x: 0 * x, "bypass")
    assert torch.equal(out, hidden)
    out = feed_forward_with_retrieval(hidden, read, lambda x: x * 2, "bypass")
    torch.testing.assert_close(out, hidden + 2 * (hidden + read))


def test_ordinary_wiring_adds_gca_output_to_the_residual():
    hidden, read = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    out = feed_forward_with_retrieval(hidden, read, lambda x: x * 2, "ordinary")
    torch.testing.assert_close(out, 3 * (hidden + read))


def test_rotation_depends_on_distance_alone_even_at_sixteen_million():
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(at):
        positions = torch.tensor([[at, at + 5]])
        cos, sin = rotary_angles(positions, 8, 10_000.0, torch.float32)
        asks, _ = rotate(q, q, (cos[:, :1], sin[:, :1]))
        answers, _ = rotate(k, k, (cos[:, 1:], sin[:, 1:]))
        return (asks * answers).sum()

    torch.testing.assert_close(score(16 * 2**20), score(0), rtol=0, atol=1e-5)
