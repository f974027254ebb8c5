"""Reading of token shards: the memory-mapped corpus that training and evaluation read."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gcattn.data.shard_index import (
    ANSWER_MASK_FILE,
    DOCUMENTS_FILE,
    DTYPES,
    RECALL_MASK_FILE,
    TOKENIZER_FOLDER,
    ShardIndex,
    sha256_of,
    shard_file,
)
from gcattn.data.tokenizer_fingerprint import num_text_ids, tokenizer_fingerprint
from gcattn.storage.home import expand_home
from gcattn.storage.manifest import MANIFEST, SMALL_BYTES, check_folder, read_manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# tokens that are looked at before work begins: half a second of reading
SCANNED_TOKENS = 2**28
_SCAN_STEP = 2**22
# of a large corpus, what is hashed when it is opened
_SMALL_FILE = 2**24


class TokenShards:
    """The token ids of a corpus, mapped from disk, with the bounds of its documents.

    Every document is followed by one end-of-text token, which `num_tokens` and `document_starts`
    count and `document` leaves out. Pickles as its folder: data-loader workers map the files anew.

    Args:
        folder: What `gcattn data prepare` made.
        check: Compare small files, and of a small corpus all, with the checksums written with them;
            `gcattn data verify` compares every byte.

    Raises:
        FileNotFoundError: `folder` is not a folder of token shards.
        ValueError: The manifest is damaged, or a file is not as it was written.

    Attributes:
        document_starts: Where each document starts in tokens, then the end, int64
            [num_documents + 1].
        recall_mask: One where a token repeats a fact stated earlier, uint8 [num_tokens], or None.
        answer_mask: One where a token belongs to an answer, uint8 [num_tokens], or None.
    """

    def __init__(self, folder: str | Path, *, check: bool = True) -> None:
        self.folder = expand_home(folder)
        index = ShardIndex.read(self.folder)
        self.num_tokens = index.num_tokens
        self.num_documents = index.num_documents
        self.num_bytes = index.num_bytes
        self.vocab_size = index.vocab_size
        self.eos_token_id = index.eos_token_id
        self.tokenizer_name = index.tokenizer_name
        self._check_tokenizer(index)
        self._shard_starts = np.cumsum([0, *index.shard_num_tokens])
        self._shards = [
            self._map(shard_file(number), DTYPES[index.dtype], length)
            for number, length in enumerate(index.shard_num_tokens)
        ]
        bounds = self._map(DOCUMENTS_FILE, "<i8", 2 * (index.num_documents + 1)).reshape(-1, 2)
        steps = np.diff(bounds, axis=0)
        # every document has its end-of-text token, and none is split between two shards
        in_order = (
            bounds[0].tolist() == [0, 0]
            and bounds[-1].tolist() == [index.num_tokens, index.num_bytes]
            and (steps[:, 0] > 0).all()
            and (steps[:, 1] >= 0).all()
            and np.isin(self._shard_starts, bounds[:, 0]).all()
        )
        if not in_order:
            raise ValueError(
                f"{self.folder / DOCUMENTS_FILE} is damaged: its bounds are not in order."
            )
        self.document_starts = bounds[:, 0]
        self._byte_starts = bounds[:, 1]
        self.recall_mask: np.ndarray | None = None
        if index.has_recall_mask:
            self.recall_mask = self._map(RECALL_MASK_FILE, "u1", index.num_tokens)
        self.answer_mask: np.ndarray | None = None
        if index.has_answer_mask:
            self.answer_mask = self._map(ANSWER_MASK_FILE, "u1", index.num_tokens)
        if check:
            self._check_files()

    def document(self, number: int) -> np.ndarray:
        """Return the token ids of a document's text as a view, without the end-of-text token."""
        self._check_document(number)
        start, stop = self.document_starts[number : number + 2]
        shard = self._shard_of(start)
        offset = self._shard_starts[shard]
        return self._checked(self._shards[shard][start - offset : stop - offset - 1], start)

    def document_num_bytes(self, number: int) -> int:
        """Return the UTF-8 length of a document's text, for bits per byte."""
        self._check_document(number)
        return int(self._byte_starts[number + 1] - self._byte_starts[number])

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Return stored tokens `start` to `stop`, end-of-text tokens included, across shards."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"Tokens {start} to {stop} are outside [0, {self.num_tokens}].")
        first, last = self._shard_of(start), self._shard_of(max(start, stop - 1))
        parts = []
        for shard in range(first, last + 1):
            offset = int(self._shard_starts[shard])
            parts.append(self._shards[shard][max(start - offset, 0) : stop - offset])
        return self._checked(parts[0] if len(parts) == 1 else np.concatenate(parts), start)

    def check_ids(self, most: int = SCANNED_TOKENS) -> None:
        """Read the first `most` tokens, before work that an impossible id would break off.

        Raises:
            ValueError: An id is beyond the vocabulary.
        """
        for start in range(0, min(self.num_tokens, most), _SCAN_STEP):
            self.tokens(start, min(start + _SCAN_STEP, self.num_tokens))

    @property
    def tokenizer_folder(self) -> Path:
        """The copy of the tokenizer, for `load_tokenizer`."""
        return self.folder / TOKENIZER_FOLDER

    def check_ends(self) -> None:
        """Look at the last token of every document.

        Raises:
            ValueError: One is not the end-of-text token.
        """
        for start, stop in zip(self._shard_starts[:-1], self._shard_starts[1:], strict=True):
            ends = self.document_starts[1:] - 1
            ends = ends[(ends >= start) & (ends < stop)]
            wrong = self._shards[self._shard_of(start)][ends - start] != self.eos_token_id
            if wrong.any():
                raise ValueError(
                    f"{self.folder} is damaged: token {ends[wrong][0]} ends a document and is not "
                    f"the end-of-text token {self.eos_token_id}; prepare the data again."
                )

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The copy of the tokenizer, loaded once."""
        from gcattn.data.tokenizer_loading import load_tokenizer

        return load_tokenizer(self.tokenizer_folder)

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """What `gcattn.data.tokenizer_fingerprint` says of the tokenizer."""
        return tokenizer_fingerprint(self.tokenizer)

    @cached_property
    def num_text_ids(self) -> int:
        """How many ids a model of the data needs."""
        return num_text_ids(self.tokenizer)

    def __getstate__(self) -> Path:
        return self.folder

    def __setstate__(self, folder: Path) -> None:
        # whoever made the copy has checked
        self.__init__(folder, check=False)  # type: ignore[misc]

    def _shard_of(self, position: int) -> int:
        """Return the shard that holds a token; the last one for the end of the corpus."""
        return int(np.searchsorted(self._shard_starts[1:-1], position, side="right"))

    def _checked(self, token_ids: np.ndarray, start: int) -> np.ndarray:
        """Refuse an id beyond the vocabulary, which no embedding has: that is damage."""
        if len(token_ids) and token_ids.max() >= self.vocab_size:
            number = int(token_ids.argmax())
            raise ValueError(
                f"{self.folder} is damaged: token {start + number} has the id {token_ids[number]}, "
                f"beyond the vocabulary of {self.vocab_size}; prepare the data again."
            )
        return token_ids

    def _check_document(self, number: int) -> None:
        if not 0 <= number < self.num_documents:
            raise IndexError(f"Document {number} is outside [0, {self.num_documents}).")

    def _check_files(self) -> None:
        """Compare files with their checksums; folders of an older release have none."""
        if not (self.folder / MANIFEST).exists():
            return
        whole = sum(listed.num_bytes for listed in read_manifest(self.folder))
        small = SMALL_BYTES if whole <= SMALL_BYTES else _SMALL_FILE
        check_folder(self.folder, hash_up_to=small)

    def _check_tokenizer(self, index: ShardIndex) -> None:
        file = self.tokenizer_folder / "tokenizer.json"
        if not file.is_file():
            raise ValueError(f"{file} is missing; prepare the data again.")
        if sha256_of(file) != index.tokenizer_sha256:
            raise ValueError(
                f"{file} is not the tokenizer that encoded these shards; prepare again."
            )

    def _map(self, name: str, dtype: str, length: int) -> np.ndarray:
        """Map a file whose size must be that of `length` numbers."""
        file = self.folder / name
        if not file.is_file():
            raise ValueError(f"{file} is missing; prepare the data again.")
        expected = length * np.dtype(dtype).itemsize
        found = file.stat().st_size
        if found != expected:
            raise ValueError(
                f"{file} is damaged: expected {expected} bytes, found {found}; prepare again."
            )
        return np.memmap(file, dtype=dtype, mode="r", shape=(length,))
