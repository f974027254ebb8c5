"""Write documentation files that hold tables as documents: a haystack that is not prose.

    python tools/texts_with_tables.py /usr/share/doc/linux-doc-6.1 --out kerneldoc.jsonl
    gcattn data prepare kerneldoc.jsonl --split all --out data/kerneldoc/all

Reads reStructuredText and text files, compressed or not. The example is Debian's package
`linux-doc-6.1`; a result names the SHA-256 of its haystack.
"""

import argparse
import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

ENDINGS = (".txt.gz", ".rst.gz", ".txt", ".rst")
LEAST_CHARACTERS = 2001
TABLE = re.compile(
    r"^(\+[-=]+\+|=+( +=+)+\s*$|\.\. (list|flat)-table|\|.*\|.*\|)", flags=re.MULTILINE
)


def texts_with_tables(folder: Path) -> Iterator[str]:
    """Yield the texts of English files with a table, by ending and name, each text once."""
    seen: set[str] = set()
    for ending in ENDINGS:
        for file in sorted(folder.rglob(f"*{ending}"), key=str):
            data = gzip.decompress(file.read_bytes()) if ending[-3:] == ".gz" else file.read_bytes()
            try:
                text = data.decode()
            except UnicodeDecodeError:
                continue
            if text not in seen and "translations" not in str(file):
                seen.add(text)
                if len(text) >= LEAST_CHARACTERS and TABLE.search(text):
                    yield text


def main() -> None:
    """Write a jsonl file of the texts, shuffled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the files")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .jsonl")
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    arguments = parser.parse_args()
    texts = list(texts_with_tables(arguments.folder))
    if not texts:
        parser.error(f"{arguments.folder} holds no {', '.join(ENDINGS)} file with a table.")
    random.Random(arguments.seed).shuffle(texts)
    with arguments.out.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"text": text}) + "\n" for text in texts)


if __name__ == "__main__":
    main()
