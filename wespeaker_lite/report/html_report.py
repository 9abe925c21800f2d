"""The report of an experiment as one HTML file: metrics, pictures, training curves, attention maps, cost, config."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from wespeaker_lite.recipe import resolved
from wespeaker_lite.report.contents import Contents, about_maps, about_stages
from wespeaker_lite.report.page import Cell, Picture, Section, Table, write_page
from wespeaker_lite.report.plots import draw_training, histogram_file
from wespeaker_lite.report.tables import title
from wespeaker_lite.report.training_curves import Record, curves, read_records


def write_html(contents: Contents) -> None:
    """Write `report/report.html`. The pictures of the report must exist."""
    records = read_records(contents.experiment / "metrics.jsonl")
    config = contents.experiment / "config.yaml"
    sections = [
        _figures(contents),
        Section("DET curves", pictures=_pictures(contents, {"det.png": "Detection error trade-off of all scorings"})),
        Section("Scores", pictures=_pictures(contents, _histograms(contents))),
        _training(records, contents.folder / "training.png"),
        *_attention(contents),
        _cost(contents, records),
        Section("Config", text=resolved.body(config) if config.exists() else ""),
    ]
    write_page(contents.folder / "report.html", contents.experiment.name, sections)


def _figures(contents: Contents) -> Section:
    rows = [
        [Cell(row.trials), Cell(row.scoring)]
        + [Cell(row.shown(metric), row.figures.get(metric)) for metric in contents.metrics]
        for row in contents.rows
    ]
    notes = contents.notes()
    if not contents.pictures:
        notes.append("Pictures were not drawn: run tools/install.sh --extras plots, and stage 7 again.")
    return Section("Figures", notes, Table(["trials", "scoring", *map(title, contents.metrics)], rows))


def _pictures(contents: Contents, captions: Mapping[str, str]) -> list[Picture]:
    if not contents.pictures:
        return []
    return [Picture(contents.folder / name, caption) for name, caption in captions.items()]


def _histograms(contents: Contents) -> dict[str, str]:
    lists = contents.results["trials"]
    return {histogram_file(name, scoring): f"{name}, {scoring}" for name, of in lists.items() for scoring in of}


def _training(records: Sequence[Record], picture: Path) -> Section:
    """The mean of each loss over each epoch, and its curve."""
    found = curves(records)
    names = [curve.name for curve in found]
    ends = {record.epoch: record.values for record in records if record.ends_epoch}
    rows = [[_number(epoch), *(_number(values.get(name)) for name in names)] for epoch, values in ends.items()]
    drawn = draw_training(picture, found)
    caption = "Means over epochs (points) and since the last line of the log (line)"
    return Section(
        "Training",
        ["Means over each epoch; losses before weighting."] if rows else [],
        Table(["epoch", *names], rows) if rows else None,
        [Picture(picture, caption)] if drawn else [],
    )


def _number(value: float | None) -> Cell:
    return Cell("") if value is None else Cell(f"{value:.4g}" if isinstance(value, float) else str(value), value)


def _attention(contents: Contents) -> Iterator[Section]:
    figures = contents.attention
    if figures is None:
        return
    for part in about_stages(figures):
        rows = [[Cell(name), *map(_number, values)] for name, values in part.rows.items()]
        yield Section(part.title, [part.about], Table(part.header, rows))
    if figures["picture"]:
        caption = about_maps(figures)
        yield Section("Picture of attention", pictures=[Picture(contents.folder / figures["picture"], caption)])


def _cost(contents: Contents, records: Sequence[Record]) -> Section:
    names = {"params": "parameters", "macs_1s": "multiply-accumulates for 1 s of speech"}
    rows = [
        [Cell(name), Cell(f"{contents.results[key]:,}", contents.results[key])]
        for key, name in names.items()
        if key in contents.results
    ]
    last = next((record.values for record in reversed(records) if record.ends_epoch), {})
    if "utt_per_s" in last:
        rows.append([Cell("training: crops per second in the last epoch"), _number(last["utt_per_s"])])
    return Section("Cost", table=Table(["", "number"], rows) if rows else None)
