"""Typed configuration from YAML: merging, `base:` files, `--set a.b=c`, and dataclasses filled from mappings.

This file knows no section of an experiment: each package keeps its own dataclass, and
`wespeaker_lite.recipe.experiment` joins them.
"""

import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from wespeaker_lite.core.errors import InputError

_DEPTH = 20  # the most nested sections, and the most files in a chain of `base:` keys
_LARGEST = 1 << 63  # every number is below this
LARGEST_SEED = _LARGEST - 1
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


class _Loader(yaml.SafeLoader):
    """Load plain values, lists and mappings. Tags, repeated keys, aliases (nine lines can expand to gigabytes) and deep
    nesting are errors."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) or self.depth > _DEPTH:
            fault = "aliases (*name), tags (!name) and deep nesting are not read"
            raise yaml.MarkedYAMLError(problem=fault, problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.MarkedYAMLError(problem="a key appears twice in this section", problem_mark=node.start_mark)
        return mapping


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML of plain values, lists and mappings.

    Raises:
        InputError: naming `where` and the line, if the text is anything else.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2001-13-45 is a ValueError
        raise InputError(f"{where}: not YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping and merge it over the file that its `base:` key names (relative to this file).

    Raises:
        InputError: naming the file, and the line if the YAML is malformed. Also for a circle of bases, or a chain of
            more than twenty.
    """
    path = Path(path)
    mapping, base = _read_one(path)
    chain = {path.resolve(): mapping}
    while base is not None:
        path = path.parent / base
        if path.resolve() in chain:
            raise InputError(f"{path}: its base leads back to itself")
        if len(chain) > _DEPTH:
            raise InputError(f"{path}: more than {_DEPTH} files are each the base of the one before")
        chain[path.resolve()], base = _read_one(path)
    return functools.reduce(merge, reversed(chain.values()))


def _read_one(path: Path) -> tuple[dict[str, Any], str | None]:
    """Read one file: return its mapping, and the name of its base file, if any."""
    try:
        mapping = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error}") from error
    if mapping is None:
        mapping = {}
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: expected keys and values at the top")
    base = mapping.pop("base", None)
    if base is not None and (not isinstance(base, str) or not base.isprintable()):
        raise InputError(f"{path}: base: expected the name of a file, found {base!r}")
    return mapping, base


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings key by key. `over` wins, nested mappings are merged, and lists are replaced whole.

    A `model` with another name replaces the one in `under`, because its options belong to another network.
    """
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            names = below.get("name"), value.get("name")
            renamed = key == "model" and None not in names and names[0] != names[1]
            merged[key] = dict(value) if renamed else merge(below, value)
        else:
            merged[key] = value
    return merged


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Turn assignments such as `train.epochs=20`, whose values are YAML, into a nested mapping."""
    result: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not all(path.split(".")) or path.count(".") > _DEPTH:
            raise InputError(f"--set {assignment!r}: expected section.key=value")
        value = parse_yaml(text, f"--set {assignment!r}")
        for key in reversed(path.split(".")):
            value = {key: value}
        result = merge(result, value)
    return result


def given(conf: str | Path, overrides: str | Path | None = None, assignments: Iterable[str] = ()) -> dict[str, Any]:
    """Merge the user's settings, without defaults: conf YAML < overrides of the corpus < `--set` assignments.

    If `start_from` names another conf, the overrides are merged into that one, and this conf is merged on top.
    Overrides that shorten training must not undo the settings of a fine-tuning.

    Raises:
        InputError: as `read_yaml`; for a circle of confs that start from each other.
    """
    return merge(_on_corpus(Path(conf), overrides, []), parse_assignments(assignments))


def _on_corpus(conf: Path, overrides: str | Path | None, starters: list[Path]) -> dict[str, Any]:
    if conf.resolve() in starters:
        raise InputError(f"{conf}: start_from leads back to this file")
    if len(starters) > _DEPTH:
        raise InputError(f"{conf}: more than {_DEPTH} confs start from each other")
    mapping = read_yaml(conf)
    if is_conf(mapping.get("start_from")):
        return merge(_on_corpus(Path(mapping["start_from"]), overrides, [*starters, conf.resolve()]), mapping)
    if overrides and Path(overrides).exists():
        mapping = merge(mapping, read_yaml(overrides))
    return mapping


def is_conf(start_from: object) -> bool:
    """Whether `start_from` names a conf to be trained first, not the file of a trained model."""
    return str(start_from).endswith((".yaml", ".yml"))


def bounded(default: Any, low: float, high: float) -> Any:
    """A field of a config dataclass. Its number, or each number of its tuple, must lie in [low, high].

    `from_mapping` checks it. Every number of a config has bounds, so that a bad value is an error at the start of a
    stage, not after hours of training.
    """
    return dataclasses.field(default=default, metadata={"bounds": (low, high)})


def added_later(default: Any, low: float | None = None, high: float | None = None) -> Any:
    """A field that was added when users had trained models. At its default it is left out of resolved configs.

    So the configs of finished trainings stay equal, and nothing is trained again. A number has bounds, as in `bounded`.
    """
    return dataclasses.field(
        default=default, metadata={"added_later": True, **({} if low is None else {"bounds": (low, high)})}
    )


def from_mapping(cls: type, mapping: Any, where: str) -> Any:
    """Fill the dataclass `cls` from a mapping. Messages begin with `where`, for example `conf/x.yaml: train`.

    Values must have the field's type. A float may be an integer or a text such as 1e-3, and a tuple may be a list.

    Raises:
        InputError: for an unknown key (with the nearest match), a missing key without default, a value of another type
            or out of bounds, or one that the dataclass itself refuses (`ValueError` in its `__post_init__`).
    """
    if not isinstance(mapping, Mapping):
        raise InputError(f"{where}: expected keys and values, found {mapping!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in mapping:
        if key not in fields:
            raise InputError(f"{where}: unknown key {key!r}{nearest(key, fields)}")
    values = {key: _typed(hints[key], value, f"{where}.{key}") for key, value in mapping.items()}
    for key, value in values.items():
        _check_bounds(fields[key], value, f"{where}.{key}")
    for name, field in fields.items():
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if name not in values and no_default:
            raise InputError(f"{where}: {name!r} is missing")
    try:
        return cls(**values)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _check_bounds(field: dataclasses.Field, value: Any, where: str) -> None:
    low, high = field.metadata.get("bounds", (None, None))
    if low is None or value is None:
        return
    for number in value if isinstance(value, tuple) else (value,):
        if not low <= number <= high:
            raise InputError(f"{where}: {number} does not lie in [{low}, {high}]")


def nearest(word: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, or all of them."""
    known = sorted(known)
    match = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; known: {', '.join(known)}"


def _typed(expected: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if expected is Any:
        return value
    if dataclasses.is_dataclass(expected):
        return from_mapping(expected, value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _typed(inner, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{where}: {value!r} is none of {', '.join(map(repr, arguments))}")
        return value
    if origin in (list, tuple) and isinstance(value, list | tuple):
        return origin(_typed(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if (origin or expected) is dict and isinstance(value, Mapping):
        return dict(value)
    if expected is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)  # YAML 1.1 reads 1e-3, without a decimal point, as text
    if expected in (int, float) and type(value) in (int, expected):
        if not abs(value) < _LARGEST:  # also true for nan
            raise InputError(f"{where}: {str(value)[:20]} is too large or not a number")
        return expected(value)
    if type(value) is expected:
        return value
    name = getattr(expected, "__name__", str(expected))
    raise InputError(f"{where}: expected {name}, found {value!r}")


def to_mapping(section: Any) -> Any:
    """A dataclass tree as plain mappings and lists, for YAML. Fields `added_later` are omitted at their default."""
    if dataclasses.is_dataclass(section):
        values = ((field, getattr(section, field.name)) for field in dataclasses.fields(section))
        return {
            field.name: to_mapping(value)
            for field, value in values
            if not (field.metadata.get("added_later") and value == field.default)
        }
    if isinstance(section, Mapping):
        return {key: to_mapping(value) for key, value in section.items()}
    if isinstance(section, list | tuple):
        return [to_mapping(value) for value in section]
    return section
