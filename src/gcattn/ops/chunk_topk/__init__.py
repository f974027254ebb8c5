"""Choosing chunks: one public function, one file for each way to choose, one for the weights."""

from gcattn.ops.chunk_topk.api import ChunkSelection, RetrievalNoise, Selection, chunk_topk

__all__ = ["ChunkSelection", "RetrievalNoise", "Selection", "chunk_topk"]
