"""Write Python source files of installed packages as documents: a haystack that is not prose.

    python tools/python_texts.py stdlib --seed 0 --out code.jsonl
    python tools/python_texts.py torch transformers --megabytes 45 --seed 0 --out code2.jsonl
    gcattn data prepare code.jsonl --tokenizer checkpoints/gcattn-12m --out data/code

What comes of it depends on the versions that are installed; a result names the SHA-256 of its
haystack.
"""

import argparse
import importlib.util
import json
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

STDLIB = "stdlib"
LEAST_CHARACTERS = 200
LEFT_OUT = {"site-packages", "dist-packages", "__pycache__"}
TESTS = {"test", "tests"}


def folder_of(package: str) -> Path:
    """Return the folder of an installed package.

    Raises:
        ValueError: There is no such package.
    """
    if package == STDLIB:
        return Path(sysconfig.get_paths()["stdlib"])
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"{package!r} is no installed package; install it or leave it out.")
    return Path(next(iter(found.submodule_search_locations)))


def sources(packages: list[str], *, tests: bool) -> Iterator[str]:
    """Yield the source files of packages, or those of their tests, in the order of their names."""
    for package in packages:
        folder = folder_of(package)
        for file in sorted(folder.rglob("*.py")):
            parts = set(file.relative_to(folder).parts)
            if not LEFT_OUT & parts and tests == bool(TESTS & parts):
                text = file.read_text(encoding="utf-8", errors="replace")
                if len(text) >= LEAST_CHARACTERS:
                    yield text


def main() -> None:
    """Write a jsonl file of the texts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="+", help=f"importable names, or {STDLIB}")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .jsonl")
    parser.add_argument("--tests", action="store_true", help="the packages' tests instead")
    parser.add_argument(
        "--megabytes", type=float, default=float("inf"), help="stop after this many"
    )
    parser.add_argument("--seed", type=int, help="shuffle the files (default: order of names)")
    arguments = parser.parse_args()
    texts = list(sources(arguments.packages, tests=arguments.tests))
    if arguments.seed is not None:
        random.Random(arguments.seed).shuffle(texts)
    room = arguments.megabytes * 1e6
    with arguments.out.open("w", encoding="utf-8") as stream:
        for text in texts:
            room -= len(text.encode())
            if room < 0:
                break
            stream.write(json.dumps({"text": text}) + "\n")


if __name__ == "__main__":
    main()
