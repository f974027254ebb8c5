"""Saved memories: read once, kept in a folder, opened by any number of streams."""

from gcattn.memory.saved.combining import export_memory, merge_memories
from gcattn.memory.saved.deletion import delete_documents
from gcattn.memory.saved.description import Description, PartEntry
from gcattn.memory.saved.documents import Document
from gcattn.memory.saved.memory import Passage, SavedMemory, open_memory
from gcattn.memory.saved.writer import MemoryWriter

__all__ = [
    "Description",
    "Document",
    "MemoryWriter",
    "PartEntry",
    "Passage",
    "SavedMemory",
    "delete_documents",
    "export_memory",
    "merge_memories",
    "open_memory",
]
