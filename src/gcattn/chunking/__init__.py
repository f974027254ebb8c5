"""The only place that knows about landmark slots: where everything sits (paper, section 3).

A decoder's columns are its tokens with a landmark after every chunk and nothing else, so windows
and rotary positions are those of an ordinary decoder. Chunks of unequal length exist only in the
grid [B, C, S] that the chunk encoder and Grouped Cross-Attention see.
"""

from gcattn.chunking.breaks import prompt_breaks
from gcattn.chunking.labels import IGNORED, next_token_labels
from gcattn.chunking.layout import BlockGrid, ChunkLayout
from gcattn.chunking.plan import plan_chunks
from gcattn.chunking.regular import RegularLayout
from gcattn.chunking.segments import whole_chunks
from gcattn.chunking.state import ChunkState
from gcattn.chunking.table import TableBlocks, TableLayout
from gcattn.chunking.tokens import insert_landmarks, strip_landmarks

__all__ = [
    "IGNORED",
    "BlockGrid",
    "ChunkLayout",
    "ChunkState",
    "RegularLayout",
    "TableBlocks",
    "TableLayout",
    "insert_landmarks",
    "next_token_labels",
    "plan_chunks",
    "prompt_breaks",
    "strip_landmarks",
    "whole_chunks",
]
