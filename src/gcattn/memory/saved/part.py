"""One part of a saved memory: a safetensors file that is written once and read in pieces.

    head        header, lengths, documents, lines, checksums of all that follows, names
    landmarks   [n, E]
    chunks      [n, 2, S, G, D], keys and values of a chunk side by side: one read brings a chunk
    token_ids   [t], of all chunks in their order

The description holds the SHA-256 of the head, which is checked when a memory is opened. The head
holds a CRC-32 for every chunk and for every block of landmarks and token ids, checked each time
they are read: no answer ever comes from damaged data, and opening a memory reads only heads.
Files are read, never mapped: a file that is truncated while it is open gives an error, not a crash.

Shapes: n chunks of the part, t tokens, d documents, S slots per chunk, G key/value heads, D head
dim, E hidden size.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcattn.memory.saved.description import PartEntry
from gcattn.storage.manifest import DamagedFolderError
from gcattn.storage.whole import new_file

# bytes that share a checksum, of landmarks and token ids
BLOCK_BYTES = 2**20
# bytes that are checked while they are still in a core's cache
PIECE_BYTES = 2**18
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U16": torch.uint16,
    "U8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_HEAD = ("lengths", "documents", "lines", "checksums", "names")


@dataclass(frozen=True)
class PartContent:
    """The content of a part to write, on the CPU."""

    landmarks: Tensor  # [n, E]
    chunks: Tensor | None  # [n, 2, S, G, D]; None: they are recomputed from token ids
    lengths: Tensor  # int32 [n], tokens of each chunk
    token_ids: Tensor  # int32 or uint16 [t], or [0]: not known
    lines: Tensor  # int32 [n], line of its source on which a chunk begins; 0: not known
    documents: Tensor  # int32 [d], chunks of each document
    names: list[dict[str, Any]]  # of the documents: "name", and the builder's notes
    continues: bool = False
    ends: bool = True


def write_part(folder: Path, number: int, content: PartContent, cursor: Any = None) -> PartEntry:
    """Write a part atomically; return its entry for the description.

    Raises:
        DiskFullError: The disk is full.
    """
    body = {"landmarks": content.landmarks, "token_ids": content.token_ids}
    if content.chunks is not None:
        body = {
            "landmarks": content.landmarks,
            "chunks": content.chunks,
            "token_ids": content.token_ids,
        }
    bytes_ = {name: _bytes_of(x) for name, x in body.items()}
    checksums = [
        zlib.crc32(data[at : at + size])
        for name, data in bytes_.items()
        for size in [_block_bytes(name, body[name])]
        for at in range(0, len(data), size)
    ]
    names = json.dumps(content.names, ensure_ascii=False).encode()
    head = {
        "lengths": content.lengths,
        "documents": content.documents,
        "lines": content.lines,
        "checksums": torch.from_numpy(np.array(checksums, dtype=np.uint32).view(np.int32)),
        # spaces after the JSON align what follows for any dtype
        "names": torch.frombuffer(
            bytearray(names + b" " * (-len(names) % 64 + _pad(content, len(checksums)))),
            dtype=torch.uint8,
        ),
    }
    header = _header(head | body)
    digest = hashlib.sha256(header)
    name = f"parts/{number:06d}.safetensors"
    with new_file(folder / name, "wb") as stream:
        stream.write(header)
        for x in head.values():
            digest.update(_bytes_of(x))
            stream.write(_bytes_of(x))
        head_bytes = stream.tell()
        for data in bytes_.values():
            stream.write(data)
        num_bytes = stream.tell()
    return PartEntry(
        file=name,
        bytes=num_bytes,
        head_bytes=head_bytes,
        head_sha256=digest.hexdigest(),
        chunks=len(content.lengths),
        tokens=int(content.lengths.sum()),
        documents=len(content.documents),
        continues=content.continues,
        ends=content.ends,
        cursor=cursor,
    )


class Part:
    """A part that is read in pieces, each checked against its checksum.

    Args:
        folder: Folder of the memory.
        entry: The part's entry in the description.

    Raises:
        DamagedFolderError: Its size or its head is not what was written.
    """

    def __init__(self, folder: Path, entry: PartEntry) -> None:
        self.entry = entry
        self.file = folder / entry.file
        with self._open(alone=True) as handle:
            size = os.fstat(handle).st_size
            if size != entry.bytes:
                raise self._damaged(f"it has {size} bytes instead of {entry.bytes}")
            data = bytearray(entry.head_bytes)
            self._read_into(handle, 0, memoryview(data))
        if hashlib.sha256(data).hexdigest() != entry.head_sha256:
            raise self._damaged("its head has changed since it was written")
        header_bytes = int.from_bytes(data[:8], "little") + 8
        self._places: dict[str, Any] = json.loads(data[8:header_bytes])
        self._places.pop("__metadata__")
        self._data_start = header_bytes
        self.lengths, self.documents, self.lines, checksums, names = (
            self._from_head(data, name) for name in _HEAD
        )
        self._names = bytes(names.numpy())
        self._checksums = checksums.numpy().view(np.uint32)
        first = 0
        self._first_checksum = {}
        for name in ("landmarks", "chunks", "token_ids"):
            if name in self._places:
                self._first_checksum[name] = first
                first += -(-self._num_bytes(name) // self._block(name))

    @property
    def num_chunks(self) -> int:
        """Chunks of the part, n."""
        return self.entry.chunks

    @property
    def has_keys_values(self) -> bool:
        """Whether chunks can be read; else they have to be recomputed."""
        return "chunks" in self._places

    @property
    def has_token_ids(self) -> bool:
        """Whether the ids of the tokens are known."""
        return self._num_bytes("token_ids") > 0 or self.entry.tokens == 0

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a chunk, [2, S, G, D]."""
        return tuple(self._places["chunks"]["shape"][1:])

    @cached_property
    def names(self) -> list[dict[str, Any]]:
        """Names of the documents, and the builder's notes on them."""
        names: list[dict[str, Any]] = json.loads(self._names)
        return names

    @cached_property
    def first_tokens(self) -> np.ndarray:
        """First token of each chunk within the part, and the end, [n + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths.numpy(), dtype=np.int64)])

    def dtype_of(self, name: str) -> torch.dtype:
        """Return the dtype of a tensor of the part."""
        return _DTYPES[self._places[name]["dtype"]]

    @property
    def landmark_size(self) -> int:
        """Values of a landmark, E."""
        return int(self._places["landmarks"]["shape"][1])

    def read_landmarks(self, out: Tensor) -> None:
        """Read all landmarks into `out` [n, E], a contiguous tensor on the CPU."""
        self._read_checked("landmarks", 0, _bytes_of(out), alone=True)

    def read_landmark(self, number: int, out: Tensor) -> None:
        """Read one landmark into `out` [E]."""
        data = _bytes_of(out)
        data[:] = self._around("landmarks", number * len(data), len(data))

    def read_chunk(self, number: int, out: Tensor) -> None:
        """Read the keys and values of a chunk into `out` [2, S, G, D], contiguous on the CPU."""
        data = _bytes_of(out)
        self._read_checked("chunks", number * len(data), data)

    def prefetch_chunk(self, number: int) -> None:
        """Ask the operating system to bring a chunk into its page cache."""
        size = self._block("chunks")
        at = self._data_start + self._places["chunks"]["data_offsets"][0] + number * size
        with self._open() as handle:
            _advise(handle, "POSIX_FADV_WILLNEED", at, size)

    def token_ids(self, first: int, end: int) -> np.ndarray:
        """Return the ids of chunks `first` … `end - 1`, one after the other, int32 [t]."""
        wide = self.dtype_of("token_ids") == torch.int32
        dtype = np.dtype(np.int32 if wide else np.uint16)
        at, to = (int(self.first_tokens[n]) * dtype.itemsize for n in (first, end))
        return np.frombuffer(self._around("token_ids", at, to - at), dtype).astype(np.int32)

    def verify(self) -> None:
        """Read everything and compare its checksums.

        Raises:
            DamagedFolderError: Something has changed since it was written.
        """
        for name in self._first_checksum:
            size, block = self._num_bytes(name), self._block(name)
            per_read = max(BLOCK_BYTES // block, 1) * block
            for at in range(0, size, per_read):
                self._read_checked(name, at, memoryview(bytearray(min(per_read, size - at))))

    def _from_head(self, data: bytearray, name: str) -> Tensor:
        place = self._places[name]
        begin, end = (self._data_start + n for n in place["data_offsets"])
        dtype = _DTYPES[place["dtype"]]
        if begin == end:
            return torch.zeros(place["shape"], dtype=dtype)
        return torch.frombuffer(data[begin:end], dtype=dtype)

    def _num_bytes(self, name: str) -> int:
        begin, end = self._places[name]["data_offsets"]
        return int(end - begin)

    def _block(self, name: str) -> int:
        if name != "chunks":
            return BLOCK_BYTES
        return max(self._num_bytes(name) // max(self.num_chunks, 1), 1)

    def _around(self, name: str, at: int, size: int) -> memoryview:
        """Return bytes by reading the whole blocks around them, which have checksums."""
        block = self._block(name)
        begin = at // block * block
        end = min(-(-(at + size) // block) * block, self._num_bytes(name))
        data = memoryview(bytearray(end - begin))
        self._read_checked(name, begin, data)
        return data[at - begin : at - begin + size]

    def _read_checked(self, name: str, at: int, data: memoryview, *, alone: bool = False) -> None:
        """Fill `data`, whole blocks from byte `at` of a tensor on, and compare their checksums."""
        block = self._block(name)
        begin = self._data_start + self._places[name]["data_offsets"][0] + at
        first = self._first_checksum[name] + at // block
        with self._open(alone=alone) as handle:
            if alone:
                _advise(handle, "POSIX_FADV_WILLNEED", begin, len(data))
            for i, start in enumerate(range(0, len(data), block)):
                checksum = 0
                end = min(start + block, len(data))
                for place in range(start, end, PIECE_BYTES):
                    piece = data[place : min(place + PIECE_BYTES, end)]
                    self._read_into(handle, begin + place, piece)
                    checksum = zlib.crc32(piece, checksum)
                if checksum != self._checksums[first + i]:
                    raise self._damaged(f"its {name.replace('_', ' ')} have changed since then")

    def _read_into(self, handle: int, at: int, data: memoryview) -> None:
        done = 0
        while done < len(data):
            try:
                count = os.preadv(handle, [data[done:]], at + done)
            except OSError as error:
                message = f"{self.file} cannot be read: {error.strerror}."
                raise DamagedFolderError(message) from error
            if count == 0:
                raise self._damaged("it ends too early")
            done += count

    @contextmanager
    def _open(self, *, alone: bool = False) -> Iterator[int]:
        """Open the file; `alone`: what follows the bytes that will be read is not wanted."""
        # a memory may have more parts than a process may have open files
        try:
            handle = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DamagedFolderError(f"{self.file} is missing.") from None
        except OSError as error:
            raise DamagedFolderError(f"{self.file} cannot be read: {error.strerror}.") from error
        try:
            if alone:
                # else the system reads ahead, several times as much
                _advise(handle, "POSIX_FADV_RANDOM")
            yield handle
        finally:
            os.close(handle)

    def _damaged(self, how: str) -> DamagedFolderError:
        return DamagedFolderError(f"{self.file} is damaged: {how}.")


def _advise(handle: int, advice: str, at: int = 0, size: int = 0) -> None:
    """Tell the system how bytes from `at` on, to the end if `size` is 0, will be read."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # a file system that takes no advice
            os.posix_fadvise(handle, at, size, getattr(os, advice))


def _header(tensors: dict[str, Tensor]) -> bytes:
    places: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, x in tensors.items():
        end = at + x.numel() * x.element_size()
        places[name] = {
            "dtype": _NAMES[x.dtype],
            "shape": list(x.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(places, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    return len(text).to_bytes(8, "little") + text


def _pad(content: PartContent, num_checksums: int) -> int:
    """Return spaces that align the end of the head to 64 bytes; the names are aligned already."""
    integers = 2 * len(content.lengths) + len(content.documents) + num_checksums
    return -4 * integers % 64


def _block_bytes(name: str, x: Tensor) -> int:
    return max(x[0].numel() * x.element_size(), 1) if name == "chunks" and len(x) else BLOCK_BYTES


def _bytes_of(x: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, without copying."""
    if not x.numel():
        return memoryview(bytearray())
    return x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
