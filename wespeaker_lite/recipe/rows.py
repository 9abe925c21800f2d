"""The experiments of a corpus' RESULTS.md: `egs/<corpus>/rows.tsv`, one row each, with one or more seeds."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wespeaker_lite.core.config import given, is_conf, nearest
from wespeaker_lite.core.errors import InputError

COLUMNS = ("row", "conf", "seeds", "groups", "against", "title", "settings")
DEFAULT_GROUP = "main"


@dataclass(frozen=True)
class Row:
    """A row of rows.tsv.

    name: name of its experiments, to which _s<seed> is appended for seeds other than 0. conf: in conf/, without .yaml.
    groups: words that select the row. against: rows to compare it with. title: its name in tables. settings: for --set.
    """

    name: str
    conf: str
    seeds: tuple[int, ...]
    groups: tuple[str, ...] = (DEFAULT_GROUP,)
    against: tuple[str, ...] = ()
    title: str = ""
    settings: tuple[str, ...] = ()

    def experiment(self, seed: int) -> str:
        """The name of the experiment's folder."""
        return self.name + (f"_s{seed}" if seed else "")

    def options(self, seed: int) -> list[str]:
        """The options of run.sh that train this row."""
        settings = [word for setting in self.settings for word in ("--set", setting)]
        return [
            "--config", f"conf/{self.conf}.yaml", "--seed", str(seed), "--name", self.experiment(seed), *settings
        ]  # fmt: skip


def read_rows(path: str | Path) -> dict[str, Row]:
    """Read rows.tsv. Columns are separated by tabs, `-` is an empty cell, and settings are separated by ` | `.

    Raises:
        InputError: naming the line, for a bad header, a wrong number of columns, a seed that is no number, a repeated
            row, or an unknown row in `against`.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or tuple(lines[0].split("\t")) != COLUMNS:
        raise InputError(f"{path}:1: expected the columns {' '.join(COLUMNS)}, with tabs between them")
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line or line.startswith("#"):
            continue
        row = _parse(line, f"{path}:{number}")
        if row.name in rows:
            raise InputError(f"{path}:{number}: the row {row.name!r} occurs twice")
        rows[row.name] = row
    for row in rows.values():
        unknown = [name for name in row.against if name not in rows]
        if unknown:
            raise InputError(f"{path}: {row.name} is compared with {unknown[0]!r}{nearest(unknown[0], rows)}")
    return rows


def _parse(line: str, where: str) -> Row:
    cells = ["" if cell.strip() == "-" else cell.strip() for cell in line.split("\t")]
    if len(cells) != len(COLUMNS):
        raise InputError(f"{where}: {len(cells)} columns, expected {len(COLUMNS)}, with tabs between them")
    name, conf, seeds, groups, against, title, settings = cells
    if not name or not conf or not seeds or not all(seed.isdecimal() for seed in seeds.split()):
        raise InputError(f"{where}: expected a row, a conf and seeds such as 0 1 2")
    return Row(
        name, conf, tuple(map(int, seeds.split())), tuple(groups.split()), tuple(against.split()), title or name,
        tuple(filter(None, map(str.strip, settings.split(" | ")))),
    )  # fmt: skip


def select(rows: Mapping[str, Row], words: Iterable[str]) -> list[tuple[Row, int]]:
    """The rows and seeds for words: ROW (all its seeds), ROW:SEED or a group. Each is returned once, in that order.

    Raises:
        InputError: for a word that is neither a row nor a group.
    """
    groups = {group for row in rows.values() for group in row.groups}
    chosen: dict[tuple[str, int], tuple[Row, int]] = {}
    for word in words:
        name, colon, seed = word.partition(":")
        if colon and name in rows and seed.isdecimal():
            found = [(rows[name], int(seed))]
        elif not colon and word in rows:
            found = [(rows[word], seed) for seed in rows[word].seeds]
        elif not colon and word in groups:
            found = [(row, seed) for row in rows.values() if word in row.groups for seed in row.seeds]
        else:
            raise InputError(f"no row {word!r}{nearest(name, {*rows, *groups})}")
        chosen.update(((row.name, seed), (row, seed)) for row, seed in found)
    return list(chosen.values())


def trained_before(row: Row, seed: int, overrides: str | Path | None) -> set[str]:
    """The names of experiments that run.sh trains before this row: its teachers, and its `start_from`.

    Confs are relative to the root of the repository, which must be the working directory.

    Raises:
        InputError: as `config.given`.
    """
    return set(_trained_before(given(f"conf/{row.conf}.yaml", overrides, row.settings), seed, overrides))


def _trained_before(mapping: Mapping[str, Any], seed: int, overrides: str | Path | None) -> Iterator[str]:
    distill = mapping.get("distill") or {}
    teachers = distill.get("teachers") or [distill.get("teacher")]
    confs = [(conf, 0) for conf in (*teachers, mapping.get("start_from")) if is_conf(conf)]
    if is_conf(mapping.get("start_from")):
        confs[-1] = (mapping["start_from"], seed)  # trained with the seed of the row; a teacher with 0
    for conf, its_seed in confs:
        yield Path(conf).stem + (f"_s{its_seed}" if its_seed else "")
        yield from _trained_before(given(conf, overrides), its_seed, overrides)
