"""Imports run one way: no circle of files, none of packages."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
ORDER = ["ops", "chunking", "memory", "nn", "models"]
# the configuration is a type that every part is built from; naming it imports nothing
TYPE_ONLY = {"gcattn.models.configuration_drt"}


def modules():
    names = {}
    for file in SOURCE.rglob("*.py"):
        parts = list(file.relative_to(SOURCE).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def imports(file, known, *, type_checking):
    """Return the modules of this package that a file imports when it is imported."""
    found = set()

    def visit(node, under_type_checking):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue  # imported when called
            under = under_type_checking or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            )
            if isinstance(child, ast.ImportFrom) and child.module in known:
                named = {f"{child.module}.{alias.name}" for alias in child.names} & known
                new = named or {child.module}
                if not under_type_checking:
                    found.update(new)
                elif type_checking:
                    found.update(new - TYPE_ONLY)
            visit(child, under)

    visit(ast.parse(file.read_text(encoding="utf-8")), False)
    return found


def graph(*, type_checking):
    files = modules()
    return {
        name: imports(file, set(files), type_checking=type_checking) - {name}
        for name, file in files.items()
    }


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


def test_no_file_imports_itself_through_others():
    assert circles(graph(type_checking=True)) == []


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
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "isinstance"
        and any(word in ast.unparse(node.args[1]) for word in ("Layout", "Blocks", "Grid"))
    ]
    assert asking == []
