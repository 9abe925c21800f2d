"""A page of sections, tables and pictures as one HTML file, which refers to nothing outside itself."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import jinja2

from wespeaker_lite.core.files import write_text


class Cell(NamedTuple):
    """What a cell shows, and the number that its column is sorted by; None sorts it as text, and where empty last."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Table:
    """A table whose columns a reader can sort."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Picture:
    """A PNG file and what it shows."""

    path: Path
    caption: str

    @property
    def data(self) -> str:
        """The file in base64."""
        return base64.b64encode(self.path.read_bytes()).decode("ascii")


@dataclass(frozen=True)
class Section:
    """A part of a page, in this order: notes, a table, pictures, and text as it is."""

    title: str
    notes: Sequence[str] = ()
    table: Table | None = None
    pictures: Sequence[Picture] = ()
    text: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(self.notes or self.table or self.pictures or self.text)


def write_page(path: str | Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page whole or not at all; names in it are text, whatever characters they have."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))
    write_text(path, template.render(title=title, sections=[section for section in sections if section]))
