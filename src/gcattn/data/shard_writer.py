"""Writing of token shards: encoded documents in, a folder out, whole or not at all."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from gcattn.data.shard_index import (
    ANSWER_MASK_FILE,
    DOCUMENTS_FILE,
    DTYPES,
    INDEX_FILE,
    RECALL_MASK_FILE,
    TOKENIZER_FOLDER,
    ShardIndex,
    sha256_of,
    shard_file,
)
from gcattn.storage.full_disk import DiskFullError
from gcattn.storage.home import expand_home
from gcattn.storage.whole import new_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DEFAULT_SHARD_TOKENS = 2**28


class TokenShardWriter:
    """Context manager that fills a hidden folder and renames it to `folder` at the end.

    An exception, a full disk or a process that dies leaves no `folder` behind (or the former one,
    untouched). A manifest with checksums goes into it.

    Args:
        folder: The folder to make.
        tokenizer: Copied into the folder, so that training and evaluation find it.
        tokenizer_name: Name to remember the tokenizer by.
        shard_tokens: A shard is closed after the document that reaches this number of tokens.
        with_recall_mask: Whether every document comes with a recall mask.
        with_answer_mask: Whether every document comes with an answer mask.
        overwrite: Replace `folder` if it is a folder of token shards.

    Raises:
        FileExistsError: `folder` is not empty, and `overwrite` is off or it holds other things.
        DiskFullError: The disk is full.
        OSError: The place is not writable.
    """

    def __init__(
        self,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerFast,
        tokenizer_name: str,
        *,
        shard_tokens: int = DEFAULT_SHARD_TOKENS,
        with_recall_mask: bool = False,
        with_answer_mask: bool = False,
        overwrite: bool = False,
    ) -> None:
        if shard_tokens < 1:
            raise ValueError(f"shard_tokens must be at least 1, got {shard_tokens}.")
        self.num_documents = 0
        self.num_tokens = 0
        self._folder = expand_home(folder).resolve()
        self._tokenizer = tokenizer
        self._tokenizer_name = tokenizer_name
        self._shard_tokens = shard_tokens
        self._with_recall_mask = with_recall_mask
        self._with_answer_mask = with_answer_mask
        # ids may have gaps: the greatest decides, not their number
        self._vocab_size = 1 + max(tokenizer.get_vocab().values())
        self._dtype = "uint16" if self._vocab_size <= 2**16 else "uint32"
        self._num_bytes = 0
        # of the document whose parts are being added
        self._open_tokens = self._open_bytes = 0
        self._shard_num_tokens: list[int] = []
        self._shard: BinaryIO | None = None
        self._overwrite = overwrite
        self._target = ExitStack()
        self._check_target(overwrite)

    def __enter__(self) -> TokenShardWriter:
        try:
            self._partial = self._target.enter_context(
                new_folder(self._folder, replace=self._overwrite)
            )
        except (DiskFullError, FileExistsError):
            raise
        except OSError as error:
            raise OSError(
                f"Can't write to {self._folder.parent} ({error.strerror}); choose another --out."
            ) from error
        self._documents = self._target.enter_context((self._partial / DOCUMENTS_FILE).open("wb"))
        self._write_document_start()
        if self._with_recall_mask:
            file = self._partial / RECALL_MASK_FILE
            self._recall_mask = self._target.enter_context(file.open("wb"))
        if self._with_answer_mask:
            file = self._partial / ANSWER_MASK_FILE
            self._answer_mask = self._target.enter_context(file.open("wb"))
        return self

    def append(
        self,
        token_ids: np.ndarray,
        num_bytes: int,
        recall_mask: np.ndarray | None = None,
        *,
        answer_mask: np.ndarray | None = None,
    ) -> None:
        """Add one document and its end-of-text token.

        Args:
            token_ids: Token ids of the text, [num_tokens].
            num_bytes: UTF-8 length of the text.
            recall_mask: Nonzero where a token repeats an earlier fact, [num_tokens].
            answer_mask: Nonzero where a token belongs to an answer, [num_tokens + 1]: the
                end-of-text token may be what ends it.
        """
        self.append_part(token_ids, num_bytes)
        if recall_mask is not None:
            self._recall_mask.write(np.append(recall_mask, 0).astype(np.uint8).tobytes())
        if answer_mask is not None:
            self._answer_mask.write(answer_mask.astype(np.uint8).tobytes())
        self.end_document()

    def append_part(self, token_ids: np.ndarray, num_bytes: int) -> None:
        """Add a part of a document that is not whole in memory; `end_document` ends it.

        Raises:
            ValueError: An id is none of the tokenizer's.
        """
        if len(token_ids) and not 0 <= token_ids.min() <= token_ids.max() < self._vocab_size:
            raise ValueError(
                f"token_ids must lie in [0, {self._vocab_size}), the tokenizer's ids, got "
                f"{token_ids.min()} to {token_ids.max()}."
            )
        if self._shard is None:
            file = self._partial / shard_file(len(self._shard_num_tokens))
            self._shard = self._target.enter_context(file.open("wb"))
            self._shard_num_tokens.append(0)
        self._shard.write(token_ids.astype(DTYPES[self._dtype]).tobytes())
        self.num_tokens += len(token_ids)
        self._open_tokens += len(token_ids)
        self._open_bytes += num_bytes

    def end_document(self) -> None:
        """End the document whose parts were added."""
        self.append_part(np.array([self._tokenizer.eos_token_id]), 0)
        self.num_documents += 1
        self._num_bytes += self._open_bytes
        self._shard_num_tokens[-1] += self._open_tokens
        self._open_tokens = self._open_bytes = 0
        self._write_document_start()
        if self._shard_num_tokens[-1] >= self._shard_tokens:
            self._close_shard()

    def drop_document(self) -> None:
        """Forget the parts of a document that can't be read to its end."""
        if self._shard is None or not self._open_tokens:
            return
        self._shard.seek(-self._open_tokens * np.dtype(DTYPES[self._dtype]).itemsize, os.SEEK_CUR)
        self._shard.truncate()
        self.num_tokens -= self._open_tokens
        self._open_tokens = self._open_bytes = 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # what is raised in here reaches the new folder, which is removed then
        with self._target:
            if error is not None:
                raise error
            self._close_shard()
            self._documents.close()
            if self._with_recall_mask:
                self._recall_mask.close()
            if self._with_answer_mask:
                self._answer_mask.close()
            self._finish()

    def _check_target(self, overwrite: bool) -> None:
        if not self._folder.exists():
            return
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            return
        if not overwrite:
            raise FileExistsError(
                f"{self._folder} exists; pass --overwrite or choose another --out."
            )
        if not (self._folder / INDEX_FILE).is_file():
            raise FileExistsError(
                f"{self._folder} is not a folder of token shards, so it is not overwritten; "
                "choose another --out."
            )

    def _write_document_start(self) -> None:
        self._documents.write(np.array([self.num_tokens, self._num_bytes], dtype="<i8").tobytes())

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def _finish(self) -> None:
        if self._shard_num_tokens and not self._shard_num_tokens[-1]:
            # its one document was dropped
            self._shard_num_tokens.pop()
            (self._partial / shard_file(len(self._shard_num_tokens))).unlink()
        tokenizer_folder = self._partial / TOKENIZER_FOLDER
        self._tokenizer.save_pretrained(tokenizer_folder)
        ShardIndex(
            dtype=self._dtype,
            vocab_size=self._vocab_size,
            eos_token_id=int(self._tokenizer.eos_token_id),
            tokenizer_name=self._tokenizer_name,
            tokenizer_sha256=sha256_of(tokenizer_folder / "tokenizer.json"),
            num_documents=self.num_documents,
            num_tokens=self.num_tokens,
            num_bytes=self._num_bytes,
            shard_num_tokens=self._shard_num_tokens,
            has_recall_mask=self._with_recall_mask,
            has_answer_mask=self._with_answer_mask,
        ).write(self._partial)
