"""Which token each token predicts.

Shapes: B batch, T tokens.
"""

import torch.nn.functional as F
from torch import Tensor

from gcattn.ops.linear_cross_entropy import IGNORED


def next_token_labels(
    labels: Tensor, valid: Tensor | None = None, document_ids: Tensor | None = None
) -> Tensor:
    """Shift labels so that token t predicts token t + 1, [B, T] → [B, T].

    Nothing is predicted from a landmark: the last token of a chunk predicts the first of the next.
    Nothing is predicted across documents, nor from or to padding.

    Args:
        labels: Token ids, -100 where there is no loss.
        valid: False where a token is padding, bool [B, T].
        document_ids: Document of each token, [B, T].

    Returns:
        Targets aligned with the logits, -100 where there is no loss.
    """
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    if valid is not None:
        valid = valid.bool()
        targets = targets.masked_fill(~(valid & F.pad(valid[:, 1:], (0, 1))), IGNORED)
    if document_ids is not None:
        crosses = F.pad(document_ids[:, 1:] != document_ids[:, :-1], (0, 1))
        targets = targets.masked_fill(crosses, IGNORED)
    return targets
