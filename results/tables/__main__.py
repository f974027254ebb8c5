"""Writes the tables of README and docs from the studies: `python -m results.tables [--check]`.

Between `<!-- table: NAME -->` and `<!-- end -->` stands what this file makes of `results/*.jsonl`;
nobody types a number there. `--check` changes nothing and fails if a file is not up to date.
"""

import argparse
import re
import sys

from gcattn.storage.whole import new_file
from results.collect import FOLDER
from results.tables.overview import TABLES, studies

ROOT = FOLDER.parent
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Rewrite the tables of README and docs from the studies in results/."""
    parser = argparse.ArgumentParser(prog="results.tables", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if one would")
    only_check = parser.parse_args().check
    stale = []
    pages = [ROOT / "README.md", FOLDER / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for file in pages:
        old = file.read_text(encoding="utf-8")
        new = BLOCK.sub(_linked if file.parent == ROOT else _filled, old)
        if new == old:
            continue
        stale.append(str(file.relative_to(ROOT)))
        if not only_check:
            with new_file(file) as stream:
                stream.write(new)
    if only_check and stale:
        print(f"not what results/ says: {', '.join(stale)}")
        print("run: python -m results.tables")
        return 1
    return 0


def _made(name: str) -> str:
    return studies() if name == "studies" else TABLES[name][1]()


def _filled(block: re.Match[str]) -> str:
    return block.group(1) + _made(block.group(2)) + block.group(3)


def _linked(block: re.Match[str]) -> str:
    """Fill a block of the front page, where the file of a table is a link."""
    return re.sub(r"^`(results/\w+\.jsonl)`", r"[\1](\1)", _filled(block), flags=re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main())
