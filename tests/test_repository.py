"""Claims about the repository itself: what a newcomer may count on in every file."""

import ast
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
MODULES = {
    str(file.relative_to(SOURCE)): file.read_text(encoding="utf-8")
    for file in sorted(SOURCE.rglob("*.py"))
}
TEXT_ENDINGS = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".cff", ".json", ""}
# fields that transformers reads
READ_BY_TRANSFORMERS = {
    "auto_map",
    "tie_word_embeddings",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
}
# spelled in pieces, so that this file does not hold them
FORBIDDEN = [
    "/wo" + "rk/",
    "/ro" + "ot/",
    "sha" + "red/",
    "pypi" + ".org",
    "python" + "hosted",
    "TO" + "DO",
    "FIX" + "ME",
]


@functools.cache
def trees():
    return {name: ast.parse(text) for name, text in MODULES.items()}


def repository_files():
    """Return the files that a commit holds or could hold."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git repository")
    files = (ROOT / name for name in done.stdout.splitlines())
    return [file for file in files if file.is_file()]


@pytest.fixture(scope="module")
def texts():
    texts = {
        str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
        for file in repository_files()
        if file.suffix in TEXT_ENDINGS and file.name != "tokenizer.json"
    }
    assert "pyproject.toml" in texts
    return texts


def test_no_file_is_long():
    lines = {name: len(text.splitlines()) for name, text in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_no_two_files_of_tests_have_one_name():
    """Pytest imports them by their names alone."""
    names = [file.stem for file in (ROOT / "tests").rglob("test_*.py")]
    assert [name for name in set(names) if names.count(name) > 1] == []


def test_every_module_says_what_it_is():
    assert [name for name, tree in trees().items() if not ast.get_docstring(tree)] == []


def test_public_names_have_docstrings():
    bare = {
        name: [node.name for node in public_definitions(tree) if not ast.get_docstring(node)]
        for name, tree in trees().items()
    }
    assert {name: names for name, names in bare.items() if names} == {}


def public_definitions(tree):
    """Yield public classes, functions and methods."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node)


def test_only_the_command_line_prints():
    printing = {
        name
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    }
    assert {name for name in printing if not name.startswith("gcattn/cli/")} == set()


@pytest.mark.parametrize("word", FORBIDDEN)
def test_no_file_says(word, texts):
    assert [name for name, text in texts.items() if word in text] == []


def test_importing_the_package_imports_nothing_heavy():
    heavy = {
        "torch",
        "transformers",
        "tokenizers",
        "triton",
        "datasets",
        "matplotlib",
        "accelerate",
    }
    program = f"import sys, gcattn; sys.exit(' '.join({heavy} & sys.modules.keys()) or None)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_public_name_can_be_imported():
    import gcattn

    assert "DRTForCausalLM" in gcattn.__all__
    missing = [name for name in gcattn.__all__ if not hasattr(gcattn, name)]
    assert missing == []


def test_every_configuration_field_is_read():
    from gcattn.models import DRTConfig

    read = {
        node.attr
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    fields = set(DRTConfig.__annotations__) - {"model_type"}
    assert {"chunk_size", "retrieval_top_k"} <= fields
    assert fields - read - READ_BY_TRANSFORMERS == set()


def test_links_between_documents_lead_somewhere(texts):
    lost = []
    for name, text in texts.items():
        if name.endswith(".md"):
            targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
            folder = (ROOT / name).parent
            lost += [f"{name}: {target}" for target in targets if not (folder / target).exists()]
    assert lost == []


def test_links_to_headings_name_a_heading(texts):
    lost = []
    for name, text in texts.items():
        if name.endswith(".md"):
            for target, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", text):
                file = (ROOT / name).parent / target if target else ROOT / name
                if heading not in heading_links(file.read_text(encoding="utf-8")):
                    lost.append(f"{name}: {target}#{heading}")
    assert lost == []


def heading_links(text):
    """Return what links to the headings of a page end with, as the site builds them."""
    outside_blocks = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", outside_blocks, re.M)
    return [re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", h).strip().lower()) for h in headings]


def test_the_package_version_is_that_of_the_citation(texts):
    from gcattn import __version__

    assert f"version: {__version__}\n" in texts["CITATION.cff"]


def test_shipped_tokenizer_is_whole():
    folder = ROOT / "src" / "gcattn" / "data" / "tokenizer"
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert len(vocabulary["model"]["vocab"]) + len(vocabulary["added_tokens"]) >= 16_383
