"""Merging and checking of configs: an unknown key or wrong type is an error with the nearest match."""

import dataclasses
import importlib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from wespeaker_lite.core import plugins
from wespeaker_lite.core.config import (
    from_mapping,
    given,
    merge,
    parse_assignments,
    read_yaml,
    to_mapping,
)
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.pool import PoolEntry
from wespeaker_lite.recipe import resolved
from wespeaker_lite.recipe.experiment import Experiment, load


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"] = "a"
    widths: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    rate: float
    steps: int = 3
    name: str = ""
    flag: bool = False
    limit: int | None = None
    inner: Inner = field(default_factory=Inner)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError("expected steps >= 0")


def test_values_get_defaults_and_are_written_back() -> None:
    given_values = {"rate": 2, "limit": 7, "inner": {"kind": "b", "widths": [4, 5]}, "options": {"x": [1]}}
    outer = from_mapping(Outer, given_values, "here")
    assert outer == Outer(2.0, limit=7, inner=Inner("b", (4, 5)), options={"x": [1]})
    assert isinstance(outer.rate, float)
    assert from_mapping(Outer, to_mapping(outer), "again") == outer
    assert to_mapping(outer)["inner"] == {"kind": "b", "widths": [4, 5]}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"rate": 1.0, "setps": 2}, r"here: unknown key 'setps'; did you mean 'steps'\?"),
        ({"rate": 1.0, "zzz": 2}, "unknown key 'zzz'; known: flag, inner"),
        ({"rate": 1.0, "inner": {"kindd": "a"}}, r"here.inner: unknown key 'kindd'; did you mean 'kind'"),
        ({"rate": 1.0, "inner": {"kind": "c"}}, r"here.inner.kind: 'c' is none of 'a', 'b'"),
        ({"rate": 1.0, "inner": {"widths": [1, "2"]}}, r"here.inner.widths\[1\]: expected int, found '2'"),
        ({"rate": 1.0, "inner": 5}, "here.inner: expected keys and values, found 5"),
        ({}, "here: 'rate' is missing"),
        ({"rate": "0.001"}, "here.rate: expected float, found '0.001'"),
        ({"rate": "1e400"}, "here.rate: inf is too large"),
        ({"rate": 1.0, "steps": "1e3"}, "here.steps: expected int, found '1e3'"),
        ({"rate": 1.0, "name": 1e3}, "here.name: expected str, found 1000.0"),
        ({"rate": True}, "here.rate: expected float, found True"),
        ({"rate": 1.0, "steps": 2.5}, "here.steps: expected int, found 2.5"),
        ({"rate": 1.0, "steps": True}, "here.steps: expected int, found True"),
        ({"rate": 1.0, "flag": 1}, "here.flag: expected bool"),
        ({"rate": 1.0, "steps": -1}, "here: expected steps >= 0"),
        ({"rate": float("nan")}, "here.rate: nan is too large or not a number"),
        ({"rate": float("inf")}, "here.rate: inf is too large"),
        ({"rate": 10**400}, "here.rate: 10000000000000000000 is too large"),
        ({"rate": 1.0, "steps": 10**30}, "here.steps: 10000000000000000000 is too large"),
    ],
)
def test_errors_name_the_key(mapping: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_mapping(Outer, mapping, "here")


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "10e-4", ".1e-2", "1.0e-3", "0.001"])
def test_a_float_may_have_an_exponent_without_a_point(text: str) -> None:
    assert from_mapping(Outer, parse_assignments([f"rate={text}"]), "--set").rate == pytest.approx(0.001)
    assert from_mapping(Outer, {"rate": 1.0, "name": "1e-3"}, "here").name == "1e-3"


def test_merge_goes_into_sections_and_replaces_lists_and_renamed_parts() -> None:
    under = {"a": {"x": 1, "y": [1, 2]}, "model": {"name": "resnet", "depth": 18}}
    assert merge(under, {"a": {"y": [3]}}) == {"a": {"x": 1, "y": [3]}, "model": {"name": "resnet", "depth": 18}}
    assert merge(under, {"model": {"depth": 34}})["model"] == {"name": "resnet", "depth": 34}
    assert merge(under, {"model": {"name": "ecapa_tdnn"}})["model"] == {"name": "ecapa_tdnn"}
    rate = {"learning_rate": {"name": "one_cycle", "peak": 0.002}}
    assert merge(rate, {"learning_rate": {"name": "cosine"}}) == {"learning_rate": {"name": "cosine", "peak": 0.002}}
    assert parse_assignments(["model.channels=64", "model.name=x"]) == {"model": {"channels": 64, "name": "x"}}
    assert under["a"] == {"x": 1, "y": [1, 2]}


def test_the_order_is_conf_overrides_command_line(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("train: {epochs: 1, batch_size: 2}\nseed: 1\n")
    (tmp_path / "conf.yaml").write_text("base: base.yaml\ntrain: {epochs: 2}\n")
    (tmp_path / "overrides.yaml").write_text("train: {epochs: 3}\n")
    assert given(tmp_path / "conf.yaml") == {"train": {"epochs": 2, "batch_size": 2}, "seed": 1}
    over = given(tmp_path / "conf.yaml", tmp_path / "overrides.yaml")
    assert over["train"] == {"epochs": 3, "batch_size": 2}
    last = given(tmp_path / "conf.yaml", tmp_path / "overrides.yaml", ["train.epochs=4", "seed=9"])
    assert last == {"train": {"epochs": 4, "batch_size": 2}, "seed": 9}
    assert given(tmp_path / "conf.yaml", tmp_path / "none.yaml")["train"]["epochs"] == 2


def test_fine_tuning_inherits_the_config_that_it_starts_from_with_overrides(tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text("train: {epochs: 150, batch_size: 2}\nseed: 1\n")
    (tmp_path / "overrides.yaml").write_text("train: {epochs: 10, precision: bf16}\n")
    start = f"start_from: {tmp_path}/conf.yaml\n"
    (tmp_path / "lm.yaml").write_text(f"{start}train: {{epochs: 5}}\n")
    tuned = given(tmp_path / "lm.yaml", tmp_path / "overrides.yaml", ["seed=3"])
    assert tuned["train"] == {"epochs": 5, "batch_size": 2, "precision": "bf16"}
    assert tuned["seed"] == 3
    assert given(tmp_path / "lm.yaml")["train"] == {"epochs": 5, "batch_size": 2}
    (tmp_path / "file.yaml").write_text("start_from: exp/x/final.pt\ntrain: {epochs: 5}\n")
    assert given(tmp_path / "file.yaml", tmp_path / "overrides.yaml")["train"]["epochs"] == 10
    (tmp_path / "conf.yaml").write_text(f"start_from: {tmp_path}/lm.yaml\n")
    with pytest.raises(InputError, match=r"lm.yaml: start_from leads back to this file"):
        given(tmp_path / "lm.yaml")


def test_a_resolved_config_does_not_need_the_conf_that_it_started_from(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("model: {name: ecapa_tdnn, channels: 16}\n")
    (tmp_path / "lm.yaml").write_text(f"start_from: {tmp_path}/base.yaml\nhead: {{margin: 0.5}}\n")
    tuned = load(tmp_path / "lm.yaml")
    resolved.write(tmp_path / "config.yaml", to_mapping(tuned))
    (tmp_path / "base.yaml").unlink()
    assert load(tmp_path / "config.yaml") == tuned
    with pytest.raises(InputError, match=r"base\.yaml: no such file"):
        load(tmp_path / "lm.yaml")


def test_the_scripts_have_all_sections_that_weights_depend_on(repository: Path) -> None:
    line = next(
        line
        for line in (repository / "local/common.sh").read_text().splitlines()
        if line.startswith("training_sections=(")
    )
    known = [entry.name for entry in dataclasses.fields(Experiment) if entry.name not in ("runtime", "scoring")]
    assert sorted(line.partition("(")[2].rstrip(")").split()) == sorted(known)


def test_a_chain_of_bases_is_merged_from_its_end_and_must_not_be_long(tmp_path: Path) -> None:
    for number in range(1501):
        (tmp_path / f"{number}.yaml").write_text(f"base: {number + 1}.yaml\nseed: {number}\n")
    (tmp_path / "1501.yaml").write_text("seed: 1501\n")
    with pytest.raises(InputError, match="more than 20 files are each the base of the one before"):
        read_yaml(tmp_path / "0.yaml")
    assert read_yaml(tmp_path / "1490.yaml")["seed"] == 1490
    (tmp_path / "2.yaml").write_text("model: {name: resnet, depth: 18}\n")
    (tmp_path / "1.yaml").write_text("base: 2.yaml\nmodel: {width: 8}\n")
    (tmp_path / "0.yaml").write_text("base: 1.yaml\nmodel: {name: ecapa_tdnn}\n")
    assert read_yaml(tmp_path / "0.yaml") == {"model": {"name": "ecapa_tdnn"}}
    for number in range(30):
        (tmp_path / f"from{number}.yaml").write_text(f"start_from: {tmp_path}/from{number + 1}.yaml\n")
    with pytest.raises(InputError, match="more than 20 confs start from each other"):
        given(tmp_path / "from0.yaml")


def test_bad_files_and_words(tmp_path: Path) -> None:
    (tmp_path / "circle.yaml").write_text("base: circle.yaml\n")
    (tmp_path / "broken.yaml").write_text("a: [1\nb: 2\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "code.yaml").write_text("a: !!python/object/apply:os.system ['true']\n")
    (tmp_path / "twice.yaml").write_text("seed: 1\ntrain: {epochs: 1}\ntrain: {batch_size: 2}\n")
    (tmp_path / "alias.yaml").write_text("a: &x [1]\nb: [*x, *x]\n")
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 50)
    (tmp_path / "date.yaml").write_text("a: 2001-13-45\n")
    (tmp_path / "based.yaml").write_text('base: "a\\0b"\n')
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    for name, message in (
        ("circle", "leads back"), ("broken", "line 2"), ("list", "keys and values"), ("none", "no such file"),
        ("code", "not YAML"), ("twice", "a key appears twice .*line 1"), ("alias", "aliases .*line 2"),
        ("deep", "deep nesting"), ("date", "month must be in"), ("based", "base: expected the name of a file"),
        ("latin", "not UTF-8"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            read_yaml(tmp_path / f"{name}.yaml")
    for word in ("train.epochs", "=3", "a..b=3", "a=[1", "a=!!bool x", "a=&x [*x]", "a" + ".b" * 30 + "=1"):
        with pytest.raises(InputError, match="--set"):
            parse_assignments([word])


@pytest.mark.parametrize("conf", sorted((Path(__file__).parents[2] / "conf").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_conf_is_valid_and_resolved_it_is_the_same(conf: Path) -> None:
    experiment = load(conf)
    again = from_mapping(Experiment, to_mapping(experiment), "resolved")
    assert to_mapping(again) == to_mapping(experiment)
    for teacher in experiment.distill.all_teachers:
        assert (Path(__file__).parents[2] / teacher).exists()
    assert dataclasses.is_dataclass(experiment.train.optimiser)


@pytest.mark.parametrize(
    ("old", "new"), [("epochs: 7", "epochs: 9"), ("epochs: 7", "epochs: 7\n  more: 1"), ("model:\n", "")]
)
def test_a_resolved_config_that_was_changed_is_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, old: str, new: str
) -> None:
    (tmp_path / "x.yaml").write_text("model: {name: ecapa_tdnn, channels: 16}\n")
    out = tmp_path / "config.yaml"
    resolved.resolve(tmp_path / "x.yaml", None, ["train.epochs=7"], out)
    whole, status = out.read_text(), out.stat()
    assert old in whole
    resolved.resolve(tmp_path / "x.yaml", None, ["train.epochs=7"], out)
    assert (out.stat().st_ino, caplog.text) == (status.st_ino, "")
    out.write_text(whole.replace(old, new))
    resolved.resolve(tmp_path / "x.yaml", None, ["train.epochs=7"], out)
    assert out.read_text() == whole
    assert "was edited or damaged" in caplog.text


@pytest.mark.parametrize("config", [{"start_from": "x\nmodel\t$(touch BAD)"}, {"a\nb": 1}, {"x": {"a b": 1}}])
def test_values_for_the_shell_stay_on_one_line(tmp_path: Path, config: dict[str, Any]) -> None:
    resolved.write(tmp_path / "config.yaml", {"seed": 1, **config})
    with pytest.raises(InputError, match="a line break or control character"):
        list(resolved.for_shell(tmp_path / "config.yaml"))


def numbers_of(cls: type) -> list[dataclasses.Field]:
    """The numeric fields of a config dataclass and of its sections, with tuples of numbers."""
    fields = []
    for entry in dataclasses.fields(cls):
        hint = typing.get_type_hints(cls)[entry.name]
        if dataclasses.is_dataclass(hint):
            fields += numbers_of(hint)
        elif {hint, *typing.get_args(hint)} & {int, float}:
            fields.append(entry)
    return fields


def test_every_number_of_a_config_has_bounds_and_a_default_within() -> None:
    parts = [
        importlib.import_module(f"{package}.{name}").Config
        for package in ("wespeaker_lite.models", "wespeaker_lite.distill")
        for name in plugins.names(package)
    ]
    for cls in (Experiment, PoolEntry, *parts):
        for entry in numbers_of(cls):
            assert "bounds" in entry.metadata, f"{cls.__name__}: {entry.name}"
            low, high = entry.metadata["bounds"]
            values = entry.default if isinstance(entry.default, tuple) else (entry.default,)
            assert all(value is None or low <= value <= high for value in values), f"{cls.__name__}: {entry.name}"


@pytest.mark.parametrize(
    "assignment",
    [
        "scoring.top_n=0", "scoring.top_n=-3", "scoring.calibration.list=/nonexistent", "scoring.block_mb=0",
        "scoring.scorings=[cosine, cosine]", "scoring.calibration.prior=1", "scoring.calibration.seed=-1",
        "scoring.plda.lda_dim=5000", "scoring.plda.iterations=0", "seed=-1", "train.batch_size=1000000000",
        "train.optimiser.weight_decay=-1.0", "train.optimiser.momentum=1.0", "train.clip_norm=-1",
        "train.crops_per_epoch=-1", "train.learning_rate.peak=1e30", "train.margin.initial=-1",
        "distill.terms=[{name: label, temperature: 1.0e-30}]", "distill.terms=[{name: label, weight: 1e18}]",
        "distill.teacher=conf/nobody.yaml", "distill.teachers=[conf/nobody.yaml]", "start_from=exp/nobody/final.pt",
        "model.channels=-64",
        "augment.speeds=[1000]", "crop.spec_augment={narrow_band: 0.1, narrow_band_width: 80}",
        "features.sample_rate=0", "features.dither=-1", "runtime.device=gpu", "runtime.threads=1000000",
    ],
)  # fmt: skip
def test_errors_of_later_stages_are_found_before_the_first(
    repository: Path, tmp_path: Path, assignment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    key = assignment.partition("=")[0].rpartition(".")[2]
    with pytest.raises(InputError, match=key):
        resolved.resolve("conf/ecapa_c64_kd.yaml", "egs/mini/overrides.yaml", [assignment], tmp_path / "config.yaml")
    assert not (tmp_path / "config.yaml").exists()


def test_options_of_networks_and_terms_are_checked_too(tmp_path: Path) -> None:
    for text, message in (
        ("model: {name: ecapa_tdnn, chanels: 3}", "did you mean 'channels'"),
        ("model: {name: ecapa}", "did you mean 'ecapa_tdnn'"),
        ("model: {channels: 3}", "'name' is missing"),
        ("modell: {name: ecapa_tdnn}", "did you mean 'model'"),
        ("model: {name: resnet}\ndistill: {teacher: t, terms: [{name: label, wieght: 1}]}", "did you mean 'weight'"),
    ):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            load(tmp_path / "x.yaml")
