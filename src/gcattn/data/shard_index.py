"""The manifest of a folder of token shards: the one place that knows the on-disk format.

A folder holds `index.json` (this manifest), `shard_00000.bin`, … (the token ids; no document is
split between two), `documents.bin` (int64 [num_documents + 1, 2]: where each document starts, in
tokens and in UTF-8 bytes of text), `tokenizer/` (a copy of the tokenizer) and, for corpora that
know which tokens repeat a fact stated earlier or answer a question, `recall_mask.bin` or
`answer_mask.bin` (uint8 per token). All numbers are little-endian.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX_FILE = "index.json"
DOCUMENTS_FILE = "documents.bin"
RECALL_MASK_FILE = "recall_mask.bin"
ANSWER_MASK_FILE = "answer_mask.bin"
TOKENIZER_FOLDER = "tokenizer"
FORMAT = "gcattn-token-shards"
VERSION = 1
# the ids of smaller vocabularies take two bytes each
DTYPES = {"uint16": "<u2", "uint32": "<u4"}


def shard_file(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard_{number:05d}.bin"


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a small file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


@dataclass(frozen=True)
class ShardIndex:
    """What `index.json` says.

    Attributes:
        dtype: "uint16" or "uint32".
        vocab_size: Number of tokens of the tokenizer, special ones included.
        eos_token_id: The token that ends every document.
        tokenizer_name: The name or path the tokenizer was loaded from.
        tokenizer_sha256: Hash of `tokenizer/tokenizer.json`.
        num_documents: Number of documents.
        num_tokens: Number of stored tokens, one end-of-text token per document included.
        num_bytes: Number of UTF-8 bytes of the text.
        shard_num_tokens: Number of tokens of every shard.
        has_recall_mask: Whether `recall_mask.bin` exists.
        has_answer_mask: Whether `answer_mask.bin` exists; absent in folders of older releases.
    """

    dtype: str
    vocab_size: int
    eos_token_id: int
    tokenizer_name: str
    tokenizer_sha256: str
    num_documents: int
    num_tokens: int
    num_bytes: int
    shard_num_tokens: list[int]
    has_recall_mask: bool
    has_answer_mask: bool = False

    def write(self, folder: Path) -> None:
        """Write `index.json`."""
        state = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        (folder / INDEX_FILE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "ShardIndex":
        """Read and check `index.json`.

        Raises:
            FileNotFoundError: The folder does not exist or is not a folder of token shards.
            ValueError: The manifest is damaged or of another version.
        """
        file = folder / INDEX_FILE
        if not file.is_file():
            raise FileNotFoundError(
                f"{folder} is not a folder of token shards (it has no {INDEX_FILE}); "
                "make one with: gcattn data prepare SOURCE --out DIR."
            )
        try:
            state: Any = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            raise ValueError(f"{file} is damaged: not valid JSON ({reason}).") from error
        if not isinstance(state, dict) or state.pop("format", None) != FORMAT:
            raise ValueError(
                f"{file} does not describe token shards: its format is not {FORMAT!r}."
            )
        version = state.pop("version", None)
        if version != VERSION:
            raise ValueError(f"{file} has version {version}, this release reads {VERSION}.")
        state.setdefault("has_answer_mask", False)
        types = {field.name: _JSON_TYPES[field.name] for field in dataclasses.fields(cls)}
        if state.keys() != types.keys():
            wrong = ", ".join(sorted(state.keys() ^ types.keys()))
            raise ValueError(f"{file} is damaged: missing or unknown fields: {wrong}.")
        for name, kind in types.items():
            if type(state[name]) is not kind:
                raise ValueError(f"{file} is damaged: {name} must be {kind.__name__}.")
        index = cls(**state)
        for name in _COUNTS:
            if state[name] < 0:
                raise ValueError(f"{file} is damaged: {name} must be at least 0.")
        if not all(type(number) is int and number > 0 for number in index.shard_num_tokens):
            raise ValueError(f"{file} is damaged: shard_num_tokens must be positive integers.")
        if index.eos_token_id >= index.vocab_size:
            raise ValueError(f"{file} is damaged: eos_token_id is beyond the vocabulary.")
        if index.dtype not in DTYPES:
            raise ValueError(f"{file} is damaged: dtype must be uint16 or uint32.")
        if index.num_tokens != sum(index.shard_num_tokens):
            raise ValueError(f"{file} is damaged: num_tokens is not the sum of shard_num_tokens.")
        return index


_COUNTS = ("vocab_size", "eos_token_id", "num_documents", "num_tokens", "num_bytes")
_JSON_TYPES: dict[str, type] = {
    "dtype": str,
    "vocab_size": int,
    "eos_token_id": int,
    "tokenizer_name": str,
    "tokenizer_sha256": str,
    "num_documents": int,
    "num_tokens": int,
    "num_bytes": int,
    "shard_num_tokens": list,
    "has_recall_mask": bool,
    "has_answer_mask": bool,
}
