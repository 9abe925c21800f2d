"""A page of sections, tables and pictures as one self-contained HTML file."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import jinja2

from wespeaker_lite.core.files import write_text


class Cell(NamedTuple):
    """The text of a cell, and the number by which its column is sorted. None sorts as text, and empty cells last."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Table:
    """A table with sortable columns."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Picture:
    """A PNG file and its caption."""

    path: Path
    caption: str

    @property
    def data(self) -> str:
        """The file in base64."""
        return base64.b64encode(self.path.read_bytes()).decode("ascii")


@dataclass(frozen=True)
class Section:
    """A part of a page, in this order: notes, a table, pictures, and preformatted text."""

    title: str
    notes: Sequence[str] = ()
    table: Table | None = None
    pictures: Sequence[Picture] = ()
    text: str = ""

    def __bool__(self) -> bool:
        """Whether the section is not empty."""
        return bool(self.notes or self.table or self.pictures or self.text)


def write_page(path: str | Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page, which appears whole or not at all. All values are escaped."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))
    write_text(path, template.render(title=title, sections=[section for section in sections if section]))
