"""Training that starts from a trained model: its weights, and the common classes of its head."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.data.crops import CropDataset
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import Experiment
from wespeaker_lite.training.job import build_learner, start_from

Small = Callable[..., Experiment]
PERTURBED = [f"{prefix}s{n}" for prefix in ("", "sp0.9-", "sp1.1-") for n in range(5)]


def trained(experiment: Experiment, classes: list[str], path: Path, with_head: bool = True) -> Path:
    """An untrained model of these classes, different from that of seed 0."""
    torch.manual_seed(7)
    config = to_mapping(experiment)
    model = trained_model.build_model(config)
    head = trained_model.build_head(config, model.embed_dim, len(classes)) if with_head else None
    trained_model.save(path, trained_model.TrainedModel(config, model, head, classes if with_head else []))
    return path


@pytest.mark.parametrize("head", [{"name": "aam"}, {"name": "am", "subcenters": 2}, {"name": "softmax"}])
def test_classes_are_kept_by_name_and_new_ones_are_fresh(
    small: Small, small_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, head: dict
) -> None:
    experiment = small(head=head)
    known = ["sp0.9-s1", "s4", "s1", "stranger"]
    path = trained(experiment, known, tmp_path / "final.pt")
    dataset = CropDataset(small_data, experiment.crop, 0)
    learner = build_learner(experiment, dataset)
    fresh = learner.head.weight.detach().clone()
    with caplog.at_level(logging.INFO):
        start_from(str(path), learner, experiment, dataset.classes)
    start = trained_model.load(path)
    for name, value in learner.student.state_dict().items():
        torch.testing.assert_close(value, start.model.state_dict()[name], rtol=0, atol=0)
    for number, name in enumerate(dataset.classes):
        expected = start.head.weight[:, known.index(name)] if name in known else fresh[:, number]
        torch.testing.assert_close(learner.head.weight[:, number], expected, rtol=0, atol=0)
    assert learner.head.weight.requires_grad
    assert "of its 4 classes 2 are kept, 3 are new" in caplog.text


def test_the_biases_of_a_softmax_head_follow_their_classes(small: Small, small_data: Path, tmp_path: Path) -> None:
    experiment = small(head={"name": "softmax"})
    path = trained(experiment, PERTURBED, tmp_path / "final.pt")
    start = trained_model.load(path)
    start.head.bias.data = torch.arange(15.0)
    trained_model.save(path, start)
    dataset = CropDataset(small_data, experiment.crop, 0)
    learner = build_learner(experiment, dataset)
    start_from(str(path), learner, experiment, dataset.classes)
    assert learner.head.bias.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("head", ["softmax", "aam"])
def test_a_model_without_head_provides_its_network(small: Small, small_data: Path, tmp_path: Path, head: str) -> None:
    """Whatever head its config has: there is none in the file."""
    experiment = small()
    path = trained(small(head={"name": head}), [], tmp_path / "final.pt", with_head=False)
    dataset = CropDataset(small_data, experiment.crop, 0)
    learner = build_learner(experiment, dataset)
    fresh = learner.head.weight.detach().clone()
    start_from(str(path), learner, experiment, dataset.classes)
    assert torch.equal(learner.head.weight, fresh)
    name, value = next(iter(trained_model.load(path).model.state_dict().items()))
    assert torch.equal(learner.student.state_dict()[name], value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"channels": 24}}, "its model has other channels"),
        ({"features": {"frame_shift_ms": 12.5}}, "its features has other frame_shift_ms"),
        ({"head": {"name": "am"}}, "its head is of another kind"),
        ({"head": {"subcenters": 2}}, "other sub-centres"),
    ],
)
def test_mismatches_are_errors(small: Small, small_data: Path, tmp_path: Path, changes: dict, message: str) -> None:
    path = trained(small(**changes), PERTURBED, tmp_path / "final.pt")
    experiment = small()
    dataset = CropDataset(small_data, experiment.crop, 0)
    learner = build_learner(experiment, dataset)
    with pytest.raises(InputError, match=message):
        start_from(str(path), learner, experiment, dataset.classes)


@pytest.mark.parametrize(
    ("section", "option", "other"), [("features", "snip_edges", False), ("model", "pooling", "statistics")]
)
def test_a_model_older_than_an_option_has_its_default(
    small: Small, small_data: Path, tmp_path: Path, section: str, option: str, other: object
) -> None:
    path = trained(small(), PERTURBED, tmp_path / "final.pt")
    old = trained_model.load(path)
    del old.config[section][option]
    trained_model.save(path, old)
    dataset = CropDataset(small_data, small().crop, 0)
    start_from(str(path), build_learner(small(), dataset), small(), dataset.classes)
    changed = small(**{section: {option: other}})
    with pytest.raises(InputError, match=f"its {section} has other {option}"):
        start_from(str(path), build_learner(changed, dataset), changed, dataset.classes)
