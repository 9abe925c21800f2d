"""rows.tsv: valid and invalid tables, the selection of rows, and the tables of this repository."""

from pathlib import Path

import pytest

from wespeaker_lite.core.config import given
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.recipe.experiment import from_given
from wespeaker_lite.recipe.rows import COLUMNS, read_rows, select, trained_before

HEADER = "\t".join(COLUMNS) + "\n"
PLAIN = "plain\tecapa_c128\t0 1\tmain kd\t-\tPlain, c128\t-\n"
TAUGHT = "taught\tecapa_c128_label_kd\t0\tkd\tplain\t-\tdistill.terms=[{name: label, weight: 2.0}] | train.epochs=3\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.tsv"
    path.write_text(HEADER + "# a comment\n" + PLAIN + TAUGHT)
    return path


def test_rows_are_read_and_become_options_of_the_recipe(table: Path) -> None:
    rows = read_rows(table)
    assert rows["plain"].title == "Plain, c128"
    assert rows["taught"].title == "taught"
    assert rows["taught"].against == ("plain",)
    assert rows["plain"].options(1) == ["--config", "conf/ecapa_c128.yaml", "--seed", "1", "--name", "plain_s1"]
    settings = ["--set", "distill.terms=[{name: label, weight: 2.0}]", "--set", "train.epochs=3"]
    assert rows["taught"].options(0)[4:] == ["--name", "taught", *settings]


def test_arguments_select_rows_seeds_and_groups_once_each(table: Path) -> None:
    def chosen(*words: str) -> list[str]:
        return [row.experiment(seed) for row, seed in select(read_rows(table), words)]

    assert chosen("main") == ["plain", "plain_s1"]
    assert chosen("plain:7", "kd", "plain") == ["plain_s7", "plain", "plain_s1", "taught"]
    for word in ("plian", "plain:x", "main:0"):
        with pytest.raises(InputError, match=f"no row '{word}'"):
            chosen(word)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row\tconf\n", "rows.tsv:1: expected the columns row conf seeds"),
        (HEADER + "plain\tecapa_c128\n", "rows.tsv:2: 2 columns, expected 7"),
        (HEADER + PLAIN.replace("0 1", "0 x"), "rows.tsv:2: expected a row, a conf and seeds"),
        (HEADER + PLAIN + PLAIN, "rows.tsv:3: the row 'plain' occurs twice"),
        (HEADER + TAUGHT, "taught is compared with 'plain'"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rows.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_rows(tmp_path / "rows.tsv")


def test_teachers_are_known_before_a_row_runs(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    rows = read_rows("egs/speechocean_libri/rows.tsv")
    assert trained_before(rows["ecapa_c128"], 0, None) == set()
    assert trained_before(rows["bc_cmt_tiny_attn_kd_base_on"], 2, None) == {"bc_cmt_base_on", "bc_cmt_base"}
    assert trained_before(rows["bc_cmt_base_on"], 2, None) == {"bc_cmt_base_s2"}
    assert trained_before(rows["ecapa_c128_two_teachers"], 0, None) == {"ecapa_c512", "bc_cmt_base"}


def test_every_row_of_the_repository_is_a_valid_config(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    tables = sorted(Path("egs").glob("*/rows.tsv"))
    assert len(tables) >= 3
    for table in tables:
        for row in read_rows(table).values():
            mapping = given(f"conf/{row.conf}.yaml", table.with_name("overrides.yaml"), row.settings)
            from_given(mapping, f"{table}: {row.name}")
