"""The result tables of a corpus: the rows of rows.tsv that have results, with the comparisons defined there."""

from collections.abc import Sequence
from pathlib import Path

from wespeaker_lite.recipe.rows import Row
from wespeaker_lite.report.compare import Comparison, System, compare
from wespeaker_lite.report.report import BootstrapOptions
from wespeaker_lite.scoring.results import read_results

SCORINGS = ("cosine", "asnorm")


def row_tables(rows: Sequence[Row], experiments: str | Path, options: BootstrapOptions) -> str:
    """Make a table for each baseline row, scoring and trial list, over all seeds.

    experiments: the folder exp/<corpus>. The trial lists, and the mean over test sets, are those of the baseline.

    Raises:
        InputError: as `compare`.
    """
    systems = {row.name: _system(row, Path(experiments)) for row in rows}
    there = {name: system for name, system in systems.items() if system.experiments}
    texts = []
    for row in rows:
        others = [there[other.name] for other in rows if row.name in other.against and other.name in there]
        if row.name not in there or not others:
            continue
        results = read_results(there[row.name].experiments[0])
        lists, mean = tuple(results["trials"]), tuple(results.get("mean", {}).get("lists", ()))
        scorings = [scoring for scoring in SCORINGS if scoring in results["trials"][lists[0]]]
        for scoring in scorings:
            comparison = Comparison(lists, scoring, row.title, mean, draw_seeds=True)
            texts.append(compare([there[row.name], *others], comparison, options))
    return "\n".join(texts) or "no row with results is compared with another one yet\n"


def _system(row: Row, experiments: Path) -> System:
    """All experiments of a row that have results, including seeds that are not in rows.tsv."""
    folders = [experiments / row.name, *experiments.glob(f"{row.name}_s[0-9]*")]
    numbered = [folder for folder in folders[1:] if folder.name.removeprefix(f"{row.name}_s").isdecimal()]
    kept = [folder for folder in (folders[0], *sorted(numbered)) if (folder / "results.json").exists()]
    return System(row.title, tuple(kept))
