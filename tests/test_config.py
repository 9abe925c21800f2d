"""Merging and checking of configs: what is unknown or ill-typed is named, with the nearest match."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from wespeaker_lite import resolved
from wespeaker_lite.config import from_mapping, given, merge, parse_assignments, read_yaml, to_mapping
from wespeaker_lite.errors import InputError
from wespeaker_lite.experiment import Experiment, load


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


def test_values_are_filled_and_come_back() -> None:
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
        ({"rate": "1e400"}, "here.rate: inf is no number"),
        ({"rate": 1.0, "steps": "1e3"}, "here.steps: expected int, found '1e3'"),
        ({"rate": 1.0, "name": 1e3}, "here.name: expected str, found 1000.0"),
        ({"rate": True}, "here.rate: expected float, found True"),
        ({"rate": 1.0, "steps": 2.5}, "here.steps: expected int, found 2.5"),
        ({"rate": 1.0, "steps": True}, "here.steps: expected int, found True"),
        ({"rate": 1.0, "flag": 1}, "here.flag: expected bool"),
        ({"rate": 1.0, "steps": -1}, "here: expected steps >= 0"),
        ({"rate": float("nan")}, "here.rate: nan is no number to reckon with"),
        ({"rate": float("inf")}, "here.rate: inf is no number"),
        ({"rate": 10**400}, "here.rate: 10000000000000000000 is no number"),
        ({"rate": 1.0, "steps": 10**30}, "here.steps: 10000000000000000000 is no number"),
    ],
)
def test_what_is_wrong_is_named(mapping: dict, message: str) -> None:
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


def test_fine_tuning_changes_what_it_starts_from_as_that_is_on_the_corpus(tmp_path: Path) -> None:
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
    with pytest.raises(InputError, match=r"lm.yaml: it starts, by way of others, from itself"):
        given(tmp_path / "lm.yaml")


def test_a_resolved_config_stands_without_the_conf_that_it_started_from(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("model: {name: ecapa_tdnn, channels: 16}\n")
    (tmp_path / "lm.yaml").write_text(f"start_from: {tmp_path}/base.yaml\nhead: {{margin: 0.5}}\n")
    tuned = load(tmp_path / "lm.yaml")
    resolved.write(tmp_path / "config.yaml", to_mapping(tuned))
    (tmp_path / "base.yaml").unlink()
    assert load(tmp_path / "config.yaml") == tuned
    with pytest.raises(InputError, match=r"base\.yaml: no such file"):
        load(tmp_path / "lm.yaml")


def test_the_stages_know_all_sections_that_weights_depend_on(repository: Path) -> None:
    line = next(
        line
        for line in (repository / "local/common.sh").read_text().splitlines()
        if line.startswith("training_sections=(")
    )
    known = [entry.name for entry in dataclasses.fields(Experiment) if entry.name not in ("runtime", "scoring")]
    assert sorted(line.partition("(")[2].rstrip(")").split()) == sorted(known)


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
        ("code", "not YAML"), ("twice", "a key stands twice .*line 1"), ("alias", "aliases .*line 2"),
        ("deep", "deep nesting"), ("date", "month must be in"), ("based", "base: expected the name of a file"),
        ("latin", "not UTF-8"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            read_yaml(tmp_path / f"{name}.yaml")
    for word in ("train.epochs", "=3", "a..b=3", "a=[1", "a=!!bool x", "a=&x [*x]", "a" + ".b" * 30 + "=1"):
        with pytest.raises(InputError, match="--set"):
            parse_assignments([word])


@pytest.mark.parametrize("conf", sorted((Path(__file__).parent.parent / "conf").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_conf_is_valid_and_resolved_it_is_the_same(conf: Path) -> None:
    experiment = load(conf)
    again = from_mapping(Experiment, to_mapping(experiment), "resolved")
    assert to_mapping(again) == to_mapping(experiment)
    if experiment.distill.teacher:
        assert (Path(__file__).parent.parent / experiment.distill.teacher).exists()
    assert dataclasses.is_dataclass(experiment.train.optimiser)


@pytest.mark.parametrize("config", [{"start_from": "x\nmodel\t$(touch BAD)"}, {"a\nb": 1}, {"x": {"a b": 1}}])
def test_nothing_is_told_to_the_shell_that_leaves_its_line(tmp_path: Path, config: dict[str, Any]) -> None:
    resolved.write(tmp_path / "config.yaml", {"seed": 1, **config})
    with pytest.raises(InputError, match="a line break or the like"):
        list(resolved.for_shell(tmp_path / "config.yaml"))


def test_options_of_networks_and_terms_are_checked_with_the_rest(tmp_path: Path) -> None:
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
