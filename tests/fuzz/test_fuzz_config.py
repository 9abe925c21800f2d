"""YAML confs, values of --set, and tensor files: they give a valid experiment, or an error."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.common import damaged, examples, outcome
from wespeaker_lite.core.config import given as givens
from wespeaker_lite.core.config import parse_assignments, to_mapping
from wespeaker_lite.recipe import resolved, trained_model
from wespeaker_lite.recipe.experiment import Experiment, from_given, load
from wespeaker_lite.training.checkpoint import CheckpointStore

CONF = b"""\
base: base.yaml
model: {name: ecapa_tdnn, channels: 16}
features: {num_mels: 40}
distill:
  teacher: conf/t.yaml
  terms:
    - {name: label, weight: 0.5}
train: {epochs: 2, learning_rate: {name: one_cycle, peak: 0.003}}
"""
SCALARS = [
    "1", "-1", "0", "1.5", ".nan", ".inf", "-.inf", "1e400", "1" * 400, "true", "null", "''", "x", "'a\\tb'",
    '"a\\nb"', '"\\0"', "2001-13-45", "!!timestamp x", "!!bool x", "!!int x", "!!float x", "!!binary x", "0x", "1:60",
    "[]", "{}", "[1, a]", "{a: 1}", "{1: 2}", "? [a]", "&a [*a]", "*a", "<<: 1", "=", "!!python/name:os.system",
    "[" * 3000, "\ud7ff", "\x1b", "a: b: c", "- 1", "%", "@", "`", "| x"
]  # fmt: skip


def leaves(mapping: Any, prefix: str = "") -> list[str]:
    """The keys of a nested mapping, as --set names them."""
    keys = []
    for key, value in mapping.items():
        keys += [f"{prefix}{key}", *(leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [])]
    return keys


KEYS = leaves(to_mapping(from_given({"model": {"name": "ecapa_tdnn"}}, "here")))
WORDS = st.one_of(
    st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(SCALARS)),
    st.builds("{}={}".format, st.sampled_from(KEYS), st.one_of(st.integers(), st.floats())),
    st.text(max_size=20),
)


def assert_sound(experiment: Experiment, folder: Path) -> None:
    """Check that an accepted config can be written, read back unchanged, and printed for the shell line by line."""
    mapping = to_mapping(experiment)
    resolved.write(folder / "config.yaml", mapping)
    again = to_mapping(load(folder / "config.yaml"))
    assert again == mapping
    lines = outcome(lambda: list(resolved.for_shell(folder / "config.yaml")))
    if lines is not None:
        assert [line.partition("\t")[0] for line in lines if "." not in line.partition("\t")[0]] == list(mapping)
        assert all(line.isprintable() for line in "".join(lines).split("\t"))


@examples(100)
@given(words=st.lists(WORDS, max_size=2))
@example(words=["train.seed=" + "1" * 400])
@example(words=["train.learning_rate.peak=" + "1" * 400])
@example(words=['start_from="x\\nmodel\\t$(touch BAD)"'])
@example(words=["seed=[&a [x], *a]"])
@example(words=["features.frame_length_ms=.inf"])
@example(words=["model.name=[1]"])
@example(words=["model" + ".x" * 2000 + "=1"])
def test_words_of_set_change_the_experiment_or_are_refused(folder: Path, words: list[str]) -> None:
    (folder / "conf.yaml").write_text("model: {name: ecapa_tdnn}\n")
    mapping = outcome(lambda: givens(folder / "conf.yaml", None, words))
    if mapping is not None:
        json.dumps(mapping, default=str)  # as it is hashed
        experiment = outcome(lambda: from_given(mapping, "here"))
        if experiment:
            assert_sound(experiment, folder)


@examples(60)
@given(content=st.one_of(damaged(CONF), st.sampled_from(SCALARS).map(str.encode), st.binary(max_size=30)))
@example(content=b"base: 3")
@example(content=b'base: "a\\0b"')
@example(content=b"train: {epochs: 1}\ntrain: {batch_size: 2}\n")
def test_a_conf_is_read_or_refused(folder: Path, content: bytes) -> None:
    (folder / "base.yaml").write_text("seed: 1\n")
    (folder / "damaged.yaml").write_bytes(content)
    experiment = outcome(lambda: load(folder / "damaged.yaml"))
    if experiment:
        assert_sound(experiment, folder)


def test_recursive_aliases_are_refused(folder: Path) -> None:
    lines = ["a0: &a0 [1]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    (folder / "laughs.yaml").write_text("\n".join(lines))
    assert outcome(lambda: givens(folder / "laughs.yaml")) is None
    assert outcome(lambda: parse_assignments(["model=&a {x: *a}"])) is None


@pytest.fixture(scope="module")
def model(folder: Path) -> bytes:
    """The bytes of a small trained model."""
    small = {"channels": 8, "embed_dim": 4, "se_bottleneck": 4, "mfa_channels": 8, "attention_bottleneck": 4}
    config = to_mapping(from_given({"model": {"name": "ecapa_tdnn", **small}, "features": {"num_mels": 8}}, "here"))
    network = trained_model.build_model(config)
    head = trained_model.build_head(config, network.embed_dim, 2)
    trained_model.save(folder / "model.pt", trained_model.TrainedModel(config, network, head, ["a", "b"]))
    return (folder / "model.pt").read_bytes()


@examples(30)
@given(data=st.data())
def test_a_damaged_model_is_refused_or_the_same(folder: Path, model: bytes, data: st.DataObject) -> None:
    (folder / "damaged.pt").write_bytes(data.draw(damaged(model)))
    trained = outcome(lambda: trained_model.load(folder / "damaged.pt"))
    if trained:
        whole = trained_model.load(folder / "model.pt")
        assert trained.classes == whole.classes
        pairs = zip(trained.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    (folder / "epoch_0001_batch_000000.pt").write_bytes((folder / "damaged.pt").read_bytes())
    CheckpointStore(folder, 3).latest()
    outcome(lambda: resolved.copy_from_model(folder / "damaged.pt", folder / "copied.yaml"))


ODD = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 10), st.floats(), st.text(max_size=5), st.just(torch.zeros(2))),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
PLACES = [
    ("config",), ("classes",), ("model",), ("head",), ("config", "model"), ("config", "head"), ("config", "features"),
    ("config", "crop"), ("config", "model", "channels"), ("config", "features", "num_mels"), ("classes", 0),
    ("model", "conv.weight")
]  # fmt: skip


@examples(20)
@given(place=st.sampled_from(PLACES), value=ODD)
def test_a_model_with_something_else_in_it_is_refused_or_works(
    folder: Path, model: bytes, place: tuple, value: object
) -> None:
    record = torch.load(io.BytesIO(model), weights_only=True)
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    torch.save(record, folder / "odd.pt")
    trained = outcome(lambda: trained_model.load(folder / "odd.pt"))
    if trained:
        frames = torch.zeros(1, 30, trained.num_mels)
        assert trained.model(frames).shape == (1, trained.model.embed_dim)
    if outcome(lambda: resolved.copy_from_model(folder / "odd.pt", folder / "odd.yaml") or True):
        assert isinstance(yaml.safe_load((folder / "odd.yaml").read_text()), dict)
        outcome(lambda: list(resolved.for_shell(folder / "odd.yaml")))
