"""metrics.jsonl as training curves."""

import json
import logging
from pathlib import Path

import pytest

from wespeaker_lite.report import plots
from wespeaker_lite.report.training_curves import Point, curves, read_records


def line(step: int, epoch: int, event: str, **values: object) -> str:
    return json.dumps({"step": step, "epoch": epoch, "batch": step % 10, "event": event, **values}) + "\n"


def test_each_loss_is_a_curve_over_epochs(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        line(5, 1, "batch", loss=3.0, wait=0.1)
        + line(10, 1, "done", loss=2.5, label=0.5, utt_per_s=9.0)
        + line(15, 2, "batch", loss=2, label=0.4)
        + line(20, 2, "done", loss=1.5, label=0.3)
    )
    loss, label = curves(read_records(path))
    assert (loss.name, loss.lines, loss.epochs) == (
        "loss",
        [Point(0.5, 3), Point(1.5, 2)],
        [Point(1, 2.5), Point(2, 1.5)],
    )
    assert (label.name, label.lines, label.epochs) == ("label", [Point(1.5, 0.4)], [Point(1, 0.5), Point(2, 0.3)])
    assert not read_records(tmp_path / "none")


@pytest.mark.parametrize(
    "bad",
    ["{", "[1]", "7", '{"step": "x", "epoch": 1}', '{"step": 1}', '{"step": -1, "epoch": 1}', "\x00", "\xff"],
)
def test_a_damaged_line_is_left_out_with_a_warning(tmp_path: Path, bad: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes((line(10, 1, "done", loss=2.5) + bad + "\n").encode("latin-1"))
    with caplog.at_level(logging.WARNING):
        assert [record.values for record in read_records(path)] == [{"loss": 2.5}]
    assert f"{path}:2: malformed" in caplog.text


def test_unusual_values_and_names_are_drawn_or_left_out(tmp_path: Path) -> None:
    path, picture = tmp_path / "metrics.jsonl", tmp_path / "training.png"
    path.write_text(line(10, 1, "done", loss=float("nan"), up=float("inf"), text="x", large=10**400, **{"$a_{": 1.0}))
    found = curves(read_records(path))
    assert [curve.name for curve in found] == ["$a_{"]
    assert plots.draw_training(picture, found)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not plots.draw_training(picture, [])
    assert not picture.exists(), "that of an earlier run"


def test_a_run_that_was_killed_in_its_first_epoch_has_no_curves(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(line(5, 1, "batch", loss=3.0))
    assert not curves(read_records(tmp_path / "metrics.jsonl"))
