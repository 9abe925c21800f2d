"""docs/configuration.md is current and complete, and has a meaning for each key."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wespeaker_lite.bin import describe_config
from wespeaker_lite.core.config import bounded, to_mapping
from wespeaker_lite.recipe import describe
from wespeaker_lite.recipe.experiment import Experiment


def test_the_page_is_current(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["describe_config"])
    describe_config.main()
    assert (repository / "docs/configuration.md").read_text(encoding="utf-8") == capsys.readouterr().out, (
        "run: python -m wespeaker_lite.bin.describe_config > docs/configuration.md"
    )


def test_each_key_of_an_experiment_has_a_meaning_and_its_default() -> None:
    page = dict(rows_by_section(describe.describe()))
    for where, value in leaves("", to_mapping(Experiment(model={}))):
        section, _, key = where.rpartition(".")
        kind, default, _, meaning = page[section or "Sections", key]
        assert meaning, where
        if kind != "section":
            assert default.strip("`") in (str(value), str(value).lower(), str(value).replace("'", '"'), '""', "null")
    for section in ("model, name: ecapa_tdnn", "model, name: bc_cmt", "distill.terms, name: self_teacher"):
        assert any(where == section for where, _ in page), section
    assert page["distill.terms, name: label", "weight"][0] == "number", "a key of the base class"
    assert page["train", "epochs"][2] == "1 to 100,000"
    assert page["scoring.plda", "lda_dim"][:2] == ["integer or `null`", "`null`"]


def rows_by_section(page: str) -> list[tuple[tuple[str, str], list[str]]]:
    found, section = [], ""
    for line in page.splitlines():
        section = line[3:] if line.startswith("## ") else section
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `"):
            found.append(((section, cells[0].strip("`")), cells[1:]))
    return found


def leaves(where: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(where, value)]
    return [leaf for key, below in value.items() for leaf in leaves(f"{where}.{key}".lstrip("."), below)]


@dataclass
class Base:
    """What all have.

    Attributes:
        weight: of the loss: a factor.
            Any number.
    """

    weight: float = bounded(1.0, 0, 1e6)


def test_meanings_are_read_from_docstrings_and_their_bases() -> None:
    @dataclass
    class Whole(Base):
        """One key more.

        Attributes:
            depth: number of layers.
        """

        depth: int = 3

    assert describe.meanings(Whole) == {"weight": "of the loss: a factor. Any number.", "depth": "number of layers."}

    @dataclass
    class Silent(Base):
        """A key without a meaning."""

        depth: int = 3

    @dataclass
    class Stale(Base):
        """A meaning without its key.

        Attributes:
            width: of what was here once.
        """

    for cls, key in ((Silent, "depth"), (Stale, "width")):
        with pytest.raises(ValueError, match=rf"{cls.__name__}: its keys and `Attributes:` differ in \['{key}'\]"):
            describe.keys(cls)
