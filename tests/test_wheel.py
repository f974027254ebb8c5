"""What is installed is what users call: no file of the package serves experiments alone."""

import ast

from test_imports import SOURCE, modules

ROOT = SOURCE.parent
OUTSIDE = ("benchmarks", "experiments", "results", "tools")
# what users import by itself, beside `import gcattn` and the command
PUBLIC = {
    "gcattn.lm_eval",
    "gcattn.models.landmark_migration",
    "gcattn.testing",
}


def all_imports(file, known):
    """Return the modules of the package that a file imports, at once or when called."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in known:
            named = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= named | {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # modules that are named and imported on demand
            found |= {node.value} & known
    parents = {name.rpartition(".")[0] for name in found} & known
    return found | parents


def test_no_file_of_the_package_serves_experiments_alone():
    files = modules()
    known = set(files)
    reached, new = set(), {"gcattn", "gcattn.cli.__main__"} | PUBLIC
    while new:
        reached |= new
        new = set().union(*(all_imports(files[name], known) for name in new)) - reached
    outside = [file for folder in OUTSIDE for file in (ROOT / folder).rglob("*.py")]
    assert len(outside) > 30
    served = set().union(*(all_imports(file, known) for file in outside))
    assert "gcattn.train.run" in served
    assert served - reached == set()


def test_the_package_imports_nothing_that_is_not_installed_with_it():
    outside = {*OUTSIDE, "tests"}
    for name, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {part.partition(".")[0] for part in named} & outside == set(), name


def test_benchmarks_and_experiments_have_no_circle_of_files():
    from test_imports import circles

    edges = {}
    for folder in ("benchmarks", "experiments"):
        for file in (ROOT / folder).glob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            imports = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            edges[f"{folder}.{file.stem}"] = {m for m in imports if m and m.startswith(folder)}
    assert len(edges) > 20
    assert circles(edges) == []
