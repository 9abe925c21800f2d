"""Settings that do not fit the data end a run before anything is trained."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.kaldi.tables import read_table, write_table
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import Experiment, from_given
from wespeaker_lite.training.beforehand import check_training
from wespeaker_lite.training.job import Job

EMBEDDED = {"embeddings": "given.scp", "terms": [{"name": "embedding"}]}


def written(path: Path, experiment: Experiment) -> Path:
    path.write_text(yaml.safe_dump(to_mapping(experiment)))
    return path


def trained(path: Path, experiment: Experiment, classes: list[str]) -> str:
    config = to_mapping(experiment)
    model = trained_model.build_model(config)
    head = trained_model.build_head(config, model.embed_dim, len(classes))
    trained_model.save(path, trained_model.TrainedModel(config, model, head, classes))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "processes", "said"),
    [
        ({}, 8, None),
        ({"train": {"batch_size": 41}}, 1, "batch_size is 41, more than the 40 crops"),
        ({"train": {"batch_size": 41, "crops_per_epoch": 50}}, 1, None),
        ({}, 3, "a batch of 8 cannot be shared evenly by 3 processes"),
        ({"train": {"batch_norm": "local"}}, 8, "one crop of a batch"),
        ({"train": {"sampling": "corpus"}}, 1, "speaker 's0' is not of the form"),
        ({"features": {"num_mels": 20}}, 1, "10 mel bins, but the config says 20"),
        ({"crop": {"noise": {"probability": 0.5}}}, 1, "no features of noise are given"),
    ],
)
def test_training_settings_are_compared_with_the_training_set(
    small: Callable[..., Experiment], small_data: Path, tmp_path: Path, changes: dict, processes: int, said: str | None
) -> None:
    job = Job(written(tmp_path / "config.yaml", small(**changes)), small_data, tmp_path)
    if said is None:
        check_training(job, processes)
    else:
        with pytest.raises(InputError, match=said):
            check_training(job, processes)


def test_a_batch_larger_than_the_crops_of_an_epoch_needs_no_data() -> None:
    train = {"batch_size": 64, "crops_per_epoch": 32}
    with pytest.raises(InputError, match="batch_size 64 is more than the 32 crops of an epoch"):
        from_given({"model": {"name": "xvector"}, "train": train}, "c.yaml")


def test_models_that_are_there_are_compared_with_config_and_speakers(
    small: Callable[..., Experiment], small_data: Path, tmp_path: Path
) -> None:
    speakers = [f"s{number}" for number in range(5)]
    taught = small(distill={"teacher": "conf/t.yaml", "terms": [{"name": "label"}]})
    config = written(tmp_path / "config.yaml", taught)
    ours = trained(tmp_path / "ours.pt", small(), speakers)
    check_training(Job(config, small_data, tmp_path, (ours,), start_from=ours), 1)
    others = trained(tmp_path / "others.pt", small(), ["x", "y"])
    with pytest.raises(InputError, match="head knows 2 speakers, the student 5"):
        check_training(Job(config, small_data, tmp_path, (ours, others)), 1)
    for changes, said in (
        ({"model": {"channels": 32}}, "its model has other channels"),
        ({"head": {"name": "softmax"}}, "its head is of another kind"),
        ({"head": {"name": "am"}}, "its head is of another kind"),
        ({"head": {"subcenters": 3}}, "its head is of another kind or has other sub-centres"),
    ):
        other = written(tmp_path / "start.yaml", small(**changes))  # what is trained first is known by its config
        with pytest.raises(InputError, match=said):
            check_training(Job(config, small_data, tmp_path, start_from=str(other)), 1)


def test_given_embeddings_must_have_all_training_utterances(
    small: Callable[..., Experiment], small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ArkWriter("given") as writer:
        writer.write("s0-0", np.ones(2))
    job = Job(written(tmp_path / "config.yaml", small(distill=EMBEDDED)), small_data, tmp_path)
    with pytest.raises(InputError, match=r"given.scp: no embedding of 39 training utterances, such as s0-1"):
        check_training(job, 1)
    write_table("given.scp", {f"s{speaker}-{number}": "given.ark:5" for speaker in range(5) for number in range(8)})
    check_training(job, 1)


def test_each_batch_needs_labelled_crops_and_the_set_a_speaker(
    small: Callable[..., Experiment], small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_data, "data")
    speakers = read_table("data/utt2spk")
    write_table("given.scp", dict.fromkeys(speakers, "given.ark:5"))
    few = small(distill=EMBEDDED, train={"unlabelled_share": 0.8})
    job = Job(written(tmp_path / "config.yaml", few), Path("data"), tmp_path)
    for unknown, said in (
        (["s4"], "1.6 labelled ones, and each of 2 processes needs one"),
        (set(speakers.values()), "all utterances are unlabelled"),
    ):
        own = {utterance: utterance for utterance, speaker in speakers.items() if speaker in unknown}
        write_table("data/utt2spk", speakers | own)
        write_table("data/spk2unlabelled", dict.fromkeys(own, "yes"))
        with pytest.raises(InputError, match=said):
            check_training(job, 2)
        if len(own) < len(speakers):
            check_training(job, 1)
