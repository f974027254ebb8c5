"""Imports run one way: no circle of files, none of packages."""

import ast
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
ORDER = ["ops", "chunking", "memory", "nn", "models"]
# the configuration is a type that every part is built from; naming it imports nothing
TYPE_ONLY = {"gcattn.models.configuration_drt"}


@cache
def tree(file):
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def modules():
    names = {}
    for file in SOURCE.rglob("*.py"):
        parts = list(file.relative_to(SOURCE).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def imports(file, known, *, when_called=False, type_checking=False):
    """Return the modules of this package that a file imports."""
    found = set()

    def visit(node, under_type_checking):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) and not when_called:
                continue
            under = under_type_checking or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            )
            new = imported(child) & known
            if not under_type_checking:
                found.update(new)
            elif type_checking:
                found.update(new - TYPE_ONLY)
            visit(child, under)

    def imported(node):
        if isinstance(node, ast.Import):
            return {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            named = {f"{node.module}.{alias.name}" for alias in node.names} & known
            return named or {node.module}
        return set()

    visit(tree(file), False)
    return found


def graph(**which):
    """Return what each module imports; importing a module imports the packages around it."""
    files = modules()
    edges = {name: imports(file, set(files), **which) for name, file in files.items()}
    return {
        name: {p for target in targets for p in (target, *around(target))} - {name, *around(name)}
        for name, targets in edges.items()
    }


def around(name):
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def circles(edges):
    """Return every edge that closes a circle, found by walking in depth."""
    closing, state = [], {}

    def walk(node):
        state[node] = "open"
        for target in sorted(edges.get(node, ())):
            if state.get(target) == "open":
                closing.append(f"{node} -> {target}")
            elif target not in state:
                walk(target)
        state[node] = "done"

    for node in sorted(edges):
        if node not in state:
            walk(node)
    return closing


@pytest.mark.parametrize("which", ["when_called", "type_checking"])
def test_no_file_imports_itself_through_others(which):
    assert circles(graph(**{which: True})) == []


def test_no_package_imports_itself_through_others():
    packages = {}
    for name, targets in graph(type_checking=True).items():
        package = ".".join(name.split(".")[:2])
        inside = {".".join(target.split(".")[:2]) for target in targets} - {package, "gcattn"}
        packages.setdefault(package, set()).update(inside)
    assert packages["gcattn.models"] >= {"gcattn.nn", "gcattn.memory", "gcattn.chunking"}
    assert circles(packages) == []


def test_the_parts_of_the_model_build_on_each_other_in_order():
    for name, targets in graph(type_checking=True).items():
        part = name.split(".")[1] if "." in name else ""
        if part in ORDER:
            below = ORDER[: ORDER.index(part) + 1]
            allowed = {f"gcattn.{p}" for p in ("storage", *below)}
            above = {t for t in targets if ".".join(t.split(".")[:2]) not in allowed}
            assert above == set(), name


def test_no_caller_asks_which_kind_of_layout_it_has():
    asking = [
        str(file.relative_to(SOURCE))
        for file in modules().values()
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "isinstance"
        and any(word in ast.unparse(node.args[1]) for word in ("Layout", "Blocks", "Grid"))
    ]
    assert asking == []
