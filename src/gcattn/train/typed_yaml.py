"""Turn plain YAML into dataclasses and say exactly which key is wrong; `train.config` uses it."""

import difflib
import math
import re
import types
import typing
from collections.abc import Hashable, Iterable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin

import yaml

T = TypeVar("T")
# a path as text; ~ becomes the home folder
PathText: TypeAlias = Annotated[str, "path"]


def read_yaml(path: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Read a YAML mapping and lay `section.key=value` overrides over it.

    Args:
        path: The file.
        overrides: Dotted keys with YAML values, such as `training.steps=100`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not YAML, not a mapping, or an override is not `key=value`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration file {path}; see examples/ for some.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text in UTF-8 ({error.reason}).") from error
    tree = _parse(text, str(path))
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must hold sections (key: value), got {_describe(tree)}.")
    apply_overrides(tree, overrides)
    return tree


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> None:
    """Lay `section.key=value` overrides over a mapping, in place.

    Raises:
        ValueError: One is not `key=value`, or its keys lead through a value.
    """
    for override in overrides:
        _apply(tree, override)


def from_mapping(cls: type[T], mapping: Any, section: str) -> T:
    """Build the dataclass `cls` from a mapping; a field `from_` is written `from`.

    Args:
        cls: The dataclass.
        mapping: What the YAML held.
        section: Dotted name of this part of the file, "" at the top; error messages name it.

    Raises:
        ValueError: An unknown or missing key, or a value of the wrong type.
    """
    if not isinstance(mapping, dict):
        raise ValueError(f"{section} must hold keys and values, got {_describe(mapping)}.")
    hints = typing.get_type_hints(cls, include_extras=True)
    known = {field.name.rstrip("_"): field for field in fields(cls)}  # type: ignore[arg-type]
    check_keys(mapping, known, section)
    values = {}
    for key, field in known.items():
        name = f"{section}.{key}" if section else key
        if key in mapping:
            values[field.name] = convert(mapping[key], hints[field.name], name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{name} is missing; set it in the file or with {name}=….")
    try:
        return cls(**values)
    except ValueError as error:
        # a class of another package names its field alone
        if section and str(error).partition(" ")[0] in known:
            raise ValueError(f"{section}.{error}") from error
        raise


def check_keys(keys: Iterable[Any], known: Iterable[str], section: str) -> None:
    """Refuse keys that are not in `known`, naming the closest one that is."""
    known = list(known)
    where = f"section {section!r}" if section else "the configuration"
    for key in keys:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}."
            raise ValueError(f"Unknown key {shorten(key)} in {where}; {hint}")


def convert(value: Any, hint: Any, name: str) -> Any:
    """Check `value` against a type hint; integers pass as floats, nothing else is converted."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        for option in options:
            try:
                return convert(value, option, name)
            except ValueError:
                if len(options) == 1:
                    raise
    elif origin is Literal:
        if value in arguments and type(value) in {type(choice) for choice in arguments}:
            return value
    elif origin is list and isinstance(value, list):
        return [convert(item, arguments[0], f"{name}[{i}]") for i, item in enumerate(value)]
    elif origin is tuple and isinstance(value, list) and len(value) == len(arguments):
        return tuple(
            convert(item, kind, f"{name}[{i}]")
            for i, (item, kind) in enumerate(zip(value, arguments, strict=True))
        )
    elif origin is dict and arguments[1] is not Any and isinstance(value, dict):
        return {key: convert(x, arguments[1], f"{name}.{key}") for key, x in value.items()}
    elif is_dataclass(hint):
        return from_mapping(hint, value, name)  # type: ignore[arg-type]
    elif hint == PathText:
        if isinstance(value, str):
            return _expand(value, name)
    elif hint is float and type(value) in (int, float):
        return _finite(value, name)
    elif type(value) is (origin or hint):
        return value
    raise ValueError(f"{name} must be {_expected(hint)}, got {_describe(value)}.")


def shorten(value: Any) -> str:
    """Write out a value for an error message, cut where it is long or deep."""
    return _short.repr(value)


def _expand(path: str, name: str) -> str:
    if not path or "\0" in path:
        raise ValueError(f"{name} must name a file or folder, got {path!r}.")
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{name} is {path!r}, but there is no such home folder.") from error


def _finite(value: int | float, name: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {_describe(value)}.")
    return number


def _expected(hint: Any) -> str:
    if hint == PathText:
        return "text"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_expected(option) for option in arguments)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin is list:
        return "a list"
    if origin is tuple:
        return f"a list of {len(arguments)} numbers"
    return _TYPE_NAMES.get(origin or hint, str(hint))


# aliases can make a value of a few lines endless when it is written out
_short = Repr()
_short.maxlevel, _short.maxdict, _short.maxlist = 2, 4, 4
_short.maxstring, _short.maxlong, _short.maxother = 60, 30, 60
_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    dict: "keys and values",
}


def _describe(value: Any) -> str:
    return "nothing" if value is None else f"{shorten(value)} ({type(value).__name__})"


def _apply(tree: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    keys = dotted.split(".")
    if not equals or not all(keys):
        raise ValueError(f"An override must look like section.key=value, got {override!r}.")
    for depth, key in enumerate(keys[:-1]):
        below = tree.get(key)
        tree[key] = below = {} if below is None else below
        if not isinstance(below, dict):
            raise ValueError(f"{'.'.join(keys[: depth + 1])} holds no keys, cannot set {dotted}.")
        tree = below
    tree[keys[-1]] = _parse(text, override)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deeply.") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ValueError(f"{where}{line} is not valid YAML: {problem}.") from error


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 2e-3 as a number, as YAML 1.2 does, and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be one word, not a list or keys", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)
