"""`memory.json`: what a saved memory is made of, and by which weights.

    {
     "format": "gcattn memory",
     "version": 3,
     "model": {"hidden_size": 256, …},
     "fingerprint": "9f86d0…",
     …
     "parts": [{"file": "parts/000000.safetensors", "chunks": 1024, …}],
     "sha256": "60303a…"
    }

The last line is the SHA-256 of every byte before it, so any change to the file is noticed. The
file is replaced as a whole. The memory consists of the parts that it lists; any other part was left
by a killed process.
"""

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gcattn.memory.sizes import ADDED_SIZES, SIZES
from gcattn.storage.manifest import DamagedFolderError
from gcattn.storage.whole import new_file

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig

DESCRIPTION = "memory.json"
FORMAT, VERSION = "gcattn memory", 3
# the file of a cache in an older format
FORMER = "cache.json"
_TAIL = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n}\n\Z')
_PART_NAME = re.compile(r"parts/\d{6,}\.safetensors")
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class PartEntry:
    """One part in the description."""

    file: str
    bytes: int
    head_bytes: int
    head_sha256: str  # of the first `head_bytes`, which hold the checksums of all the others
    chunks: int
    tokens: int
    documents: int  # listed in this part, one that goes on from the part before included
    continues: bool  # the first of them began in an earlier part
    ends: bool  # the last of them is complete
    cursor: Any = None  # the builder's note of where to continue

    def __post_init__(self) -> None:
        counts = (self.bytes, self.head_bytes, self.chunks, self.tokens, self.documents)
        if not (
            all(type(n) is int and n >= 0 for n in counts)
            and type(self.continues) is type(self.ends) is bool
            and _PART_NAME.fullmatch(self.file)
            and _HASH.fullmatch(self.head_sha256)
        ):
            raise ValueError("An entry is not as we write it.")


@dataclass(frozen=True)
class Description:
    """The description of a saved memory: everything but the contents of its parts.

    Attributes:
        model: Sizes of the model, by the names in `SIZES`.
        fingerprint: Hash of the weights that made it; see `fingerprint`.
        dtype: Of landmarks, keys and values: "bfloat16", "float16", "float32" or "float64".
        keys_values: Whether parts hold keys and values; without them chunks are recomputed.
        parts: In their order.
        deleted: Numbers of deleted documents, as (first, last) ranges in ascending order.
        stream: For a saved stream: the SHA-256 of `stream.safetensors`, and the memory it was
            made on top of. None: the memory is not a saved stream.
    """

    model: dict[str, Any]
    fingerprint: str
    dtype: str
    keys_values: bool = True
    parts: tuple[PartEntry, ...] = ()
    deleted: tuple[tuple[int, int], ...] = ()
    stream: dict[str, Any] | None = None

    @property
    def num_chunks(self) -> int:
        """Chunks of all parts."""
        return sum(part.chunks for part in self.parts)

    @property
    def num_tokens(self) -> int:
        """Tokens of all parts."""
        return sum(part.tokens for part in self.parts)

    @property
    def num_documents(self) -> int:
        """Documents of all parts, deleted ones included."""
        return sum(part.documents - part.continues for part in self.parts)

    def without(self, documents: Iterable[int], folder: Path) -> Self:
        """Return the description of the memory in `folder` with more documents deleted.

        Raises:
            IndexError: There is no such document.
        """
        numbers = set(documents)
        for n in numbers:
            if not 0 <= n < self.num_documents:
                raise IndexError(f"{folder} has no document {n}; it has {self.num_documents:,}.")
        deleted = DeletedDocuments(list(self.deleted)).with_numbers(numbers)
        return replace(self, deleted=tuple(deleted.ranges))

    def with_part(self, part: PartEntry) -> Self:
        """Return the description with one more part."""
        return replace(self, parts=(*self.parts, part))

    def check_sizes(self, folder: Path, config: "DRTConfig") -> None:
        """Refuse a model of other sizes.

        Raises:
            ValueError: A size differs.
        """
        for name in SIZES:
            theirs, ours = (ADDED_SIZES | self.model).get(name), getattr(config, name)
            if theirs != ours:
                raise ValueError(
                    f"The memory in {folder} is of a model with {name} = {theirs}, "
                    f"this one has {ours}."
                )


def sizes_of(config: "DRTConfig") -> dict[str, Any]:
    """Return the sizes that the maker of a memory and its reader must share."""
    return {name: getattr(config, name) for name in SIZES}


def write_description(folder: Path, description: Description) -> None:
    """Replace `memory.json` atomically.

    Raises:
        DiskFullError: The disk is full.
    """
    content = {"format": FORMAT, "version": VERSION} | asdict(description)
    body = json.dumps(content, indent=1).encode().removesuffix(b"\n}")
    digest = hashlib.sha256(body).hexdigest()
    with new_file(folder / DESCRIPTION, "wb") as stream:
        stream.write(body + f',\n "sha256": "{digest}"\n}}\n'.encode())


def read_description(folder: Path) -> Description:
    """Read and check `memory.json`.

    Raises:
        FileNotFoundError: There is none.
        DamagedFolderError: It is not what was written, or is of another version.
    """
    file = folder / DESCRIPTION
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        former = " It holds a cache of an older format: load_cache reads it."
        raise FileNotFoundError(
            f"{folder} holds no memory (it has no {DESCRIPTION})."
            + (former if (folder / FORMER).is_file() else "")
        ) from None
    except OSError as error:
        raise DamagedFolderError(f"{file} cannot be read: {error.strerror}.") from error
    tail = _TAIL.search(data)
    if tail is None or hashlib.sha256(data[: tail.start()]).hexdigest() != tail[1].decode():
        raise DamagedFolderError(f"{file} is damaged: its checksum does not fit.")
    try:
        content = json.loads(data)
        kind, version = content.pop("format"), content.pop("version")
        if (kind, version) != (FORMAT, VERSION):
            raise DamagedFolderError(
                f"{file} is of format {kind!r} {version!r}, this gcattn reads {FORMAT!r} "
                f"{VERSION}: update gcattn, or read the documents again."
            )
        return _described(content)
    except DamagedFolderError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedFolderError(f"{file} is damaged: it is not as we write it.") from error


def _described(content: dict[str, Any]) -> Description:
    del content["sha256"]
    if content.keys() != {x.name for x in fields(Description)}:
        raise ValueError("A field is missing or unknown.")
    parts = tuple(PartEntry(**part) for part in content["parts"])
    deleted = tuple((int(first), int(last)) for first, last in content["deleted"])
    return Description(**(content | {"parts": parts, "deleted": deleted}))


@dataclass
class DeletedDocuments:
    """Numbers of deleted documents, kept as ranges: a folder may lose half a million."""

    ranges: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.ranges, number, key=lambda span: span[0]) - 1
        return at >= 0 and number <= self.ranges[at][1]

    def __iter__(self) -> Iterator[int]:
        return (n for first, last in self.ranges for n in range(first, last + 1))

    def with_numbers(self, numbers: set[int]) -> Self:
        """Return these and more."""
        ranges: list[tuple[int, int]] = []
        for n in sorted(numbers | set(self)):
            if ranges and ranges[-1][1] == n - 1:
                ranges[-1] = (ranges[-1][0], n)
            else:
                ranges.append((n, n))
        return type(self)(ranges)
