"""A loss that teaches the retriever where answers are, for rows that know it.

Not the paper's: there, the language-model loss alone trains the retriever. That suffices to answer
from what was retrieved, but leaves the scores of hundreds of chunks close to each other, and which
of them are best is what decides in a long context.

Shapes: B batch, T tokens, F finished chunks, Q questions of a row, E hidden size.
"""

import torch
from torch import Tensor

from gcattn.chunking import ChunkLayout
from gcattn.ops.chunk_topk.reference import score_chunks

# questions of a row that count; later ones have no evidence
MOST_QUESTIONS = 512


class Evidence:
    """Where the answers of one call's rows are said, and what its retrievers make of it.

    Args:
        marks: [B, T], n at the tokens of the sentences that answer question n of a row, -n at the
            tokens that predict its answer, 0 elsewhere.
    """

    def __init__(self, marks: Tensor) -> None:
        self.marks = marks
        self._losses: list[Tensor] = []
        self._wanted: Tensor | None = None  # the same for all retrievers of the call

    def add(self, queries: Tensor, landmarks: Tensor, layout: ChunkLayout, visible: Tensor) -> None:
        """Take the loss of one retriever.

        The landmark before the block that writes an answer should have chosen each chunk that
        answers: the loss is the mean negative logarithm of these chunks' weights, were all visible
        chunks retrieved.

        Args:
            queries: [B, F, E].
            landmarks: Of the same chunks, [B, F, E].
            layout: Of the call.
            visible: Which chunks each landmark may choose, bool [B, F, F].
        """
        if self._wanted is None:
            self._wanted = self.chunks(layout)
        wanted = self._wanted & visible
        # in bfloat16 chunks of nearly the same score would be equal
        scores = score_chunks(queries, landmarks, torch.float32)
        # a landmark that sees no chunk has scores nevertheless, and wants none
        log_weights = scores.masked_fill(~visible & visible.any(-1, keepdim=True), -torch.inf)
        log_weights = log_weights.log_softmax(-1).masked_fill(~wanted, 0)
        counts = wanted.sum(-1)  # [B, F]
        per_landmark = -log_weights.sum(-1) / counts.clamp_min(1)
        self._losses.append(per_landmark.sum() / (counts > 0).sum().clamp_min(1))

    def chunks(self, layout: ChunkLayout) -> Tensor:
        """Return which chunks hold what each landmark is asked for, bool [B, F, F]."""
        F = layout.num_finished_chunks
        chunk = layout.chunk_of_token  # [B, T]
        said = self._table(self.marks, chunk, F)
        # a block is served by the landmark before it
        asked = self._table(-self.marks, chunk - 1, F)
        return (asked.transpose(1, 2) @ said) > 0

    def mean(self) -> Tensor:
        """Return the mean loss of all retrievers, once."""
        losses, self._losses = self._losses, []
        if not losses:
            return torch.zeros((), device=self.marks.device)
        return torch.stack(losses).mean()

    @staticmethod
    def _table(questions: Tensor, chunk: Tensor, num_chunks: int) -> Tensor:
        """Return 1 where a token of a question is in a chunk, [B, Q, F]."""
        B, Q = questions.shape[0], MOST_QUESTIONS
        counts = (questions > 0) & (questions <= Q) & (chunk >= 0) & (chunk < num_chunks)
        place = (questions - 1) * num_chunks + chunk
        # what does not count goes to a place of its own
        place = torch.where(counts, place, Q * num_chunks)
        table = torch.zeros(B, Q * num_chunks + 1, device=questions.device)
        table = table.scatter(1, place, 1.0)
        return table[:, :-1].view(B, Q, num_chunks)
