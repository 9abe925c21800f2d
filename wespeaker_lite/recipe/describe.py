"""The reference page of all config keys, from the dataclasses and their docstrings."""

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from wespeaker_lite.core import plugins
from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.recipe.experiment import Experiment
from wespeaker_lite.recipe.scorings import CALIBRATIONS, COMPARISONS

HEAD = """\
# Configuration

This page is generated. Do not edit it: change the docstring of the dataclass and run

    python -m wespeaker_lite.bin.describe_config > docs/configuration.md

A config is one YAML file of `conf/`. It has only the keys that differ from the defaults. Later values replace earlier
ones:

1. the defaults on this page;
2. the file that the key `base` names, relative to the YAML;
3. the YAML itself;
4. `egs/<corpus>/overrides.yaml`;
5. `--set section.key=value` of `run.sh`, for example `--set train.epochs=20`. `--teacher-set` does the same for the
   teacher.

If `start_from` names another YAML, that YAML and the overrides of the corpus are the base of this one.
A list is replaced as a whole. An unknown key or a value out of bounds is an error, before anything runs. The bounds of
a list apply to each number in it.
`config.yaml` in the folder of an experiment has every key with the value that was used. A few newer
keys are there only if they differ from their default, so that they do not change the configs of finished trainings.
"""
NO_DEFAULT = "required"
PLAIN = {int: "integer", float: "number", str: "text", bool: "`true` or `false`"}
_ENTRY = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Key:
    """A key: its name in its section, its dataclass field, its type, and its meaning."""

    name: str
    field: dataclasses.Field
    kind: Any
    meaning: str


def meanings(cls: type) -> dict[str, str]:
    """The meanings of a config dataclass' keys: the entries below `Attributes:` in its docstring and in its bases'."""
    found = {}
    for base in reversed(cls.__mro__):
        _, _, entries = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("\nAttributes:\n")
        found |= {name: " ".join(text.split()) for name, text in _ENTRY.findall(entries)}
    return found


def keys(cls: type) -> list[Key]:
    """The keys of a config dataclass.

    Raises:
        ValueError: naming the keys that the docstring lacks, and those that only the docstring has.
    """
    known, hints = meanings(cls), typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    if wrong := {field.name for field in fields} ^ known.keys():
        raise ValueError(f"{cls.__module__}.{cls.__qualname__}: its keys and `Attributes:` differ in {sorted(wrong)}")
    return [Key(field.name, field, hints[field.name], known[field.name]) for field in fields]


def iter_sections() -> Iterator[tuple[str, type]]:
    """Yield each section of a config and its dataclass: those of an experiment, then networks, then KD terms."""
    yield from _below("", Experiment)
    for name in plugins.names("wespeaker_lite.models"):
        yield f"model, name: {name}", plugins.config_class("wespeaker_lite.models", name)
    for name in plugins.names("wespeaker_lite.distill"):
        yield f"distill.terms, name: {name}", plugins.config_class("wespeaker_lite.distill", name)


def describe() -> str:
    """The whole page, as Markdown."""
    parts = [HEAD, *(_section(where or "Sections", cls) for where, cls in iter_sections())]
    for title, choices in (("Comparisons of trials", COMPARISONS), ("Calibrations of scores", CALIBRATIONS)):
        rows = [[f"`{name}`", meaning] for name, meaning in choices.items()]
        parts.append(f"## {title}\n\n{_table(['name', 'meaning'], rows)}")
    return "\n".join(parts)


def _below(where: str, cls: type) -> Iterator[tuple[str, type]]:
    yield where, cls
    for key in keys(cls):
        if dataclasses.is_dataclass(key.kind):
            yield from _below(f"{where}.{key.name}".lstrip("."), key.kind)


def _section(where: str, cls: type) -> str:
    summary = inspect.cleandoc(cls.__doc__).partition("\nAttributes:\n")[0].strip()
    rows = [[f"`{key.name}`", show_type(key.kind), _default(key), _bounds(key), key.meaning] for key in keys(cls)]
    return f"## {where}\n\n{summary}\n\n" + _table(["key", "type", "default", "bounds", "meaning"], rows)


def show_type(kind: Any) -> str:
    """Describe a type in words: `list: integer`, or the choices."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) or (origin or kind) is dict:
        return "section"
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return f"{show_type(inner)} or `null`"
    if origin is tuple:
        return f"list: {show_type(arguments[0])}"
    return PLAIN[kind]


def _default(key: Key) -> str:
    if dataclasses.is_dataclass(key.kind):
        return ""
    if key.field.default is dataclasses.MISSING:
        return NO_DEFAULT
    value = to_mapping(key.field.default)
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def _bounds(key: Key) -> str:
    bounds = key.field.metadata.get("bounds")
    return " to ".join(_number(end) for end in bounds) if bounds else ""


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table without alignment, so that a changed cell changes one line only."""
    lines = [header, [":---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
