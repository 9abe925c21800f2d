"""Training with a self-teacher: only the plain student is deployed, and a stopped run resumes bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.data.crops import CropDataset
from wespeaker_lite.deploy.cost import count_macs, count_parameters
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import Experiment, load
from wespeaker_lite.training.job import build_learner
from wespeaker_lite.training.learner import Learner
from wespeaker_lite.training.trainer import Trainer

Small = Callable[..., Experiment]
SELF = {"name": "self_teacher", "alpha": 0.5, "beta": 3.0, "ramp_epochs": 2.0}
PARTS = {"class", "self_class", "self_label", "self_feature"}


def run(experiment: Experiment, data: Path, out: Path, teacher: str = "") -> tuple[Learner, trained_model.TrainedModel]:
    dataset = CropDataset(data, experiment.crop, experiment.seed)
    torch.manual_seed(experiment.seed)
    learner = build_learner(experiment, dataset, teacher)
    Trainer(learner, dataset, experiment, out).run()
    return learner, trained_model.load(out / "final.pt")


def last_checkpoint(out: Path) -> dict:
    return torch.load(sorted((out / "checkpoints").glob("*.pt"))[-1])["learner"]


def test_the_deployed_model_is_the_plain_student(small: Small, small_data: Path, tmp_path: Path) -> None:
    experiment = small(distill={"terms": [SELF]}, train={"epochs": 1})
    _, trained = run(experiment, small_data, tmp_path)
    plain = trained_model.build_model(to_mapping(small()))
    plain.load_state_dict(trained.model.state_dict(), strict=True)
    assert list(trained.model.state_dict()) == list(plain.state_dict())
    assert count_parameters(trained.model) == count_parameters(plain)
    assert count_macs(trained.model, 10) == count_macs(plain, 10)
    feats = torch.randn(2, 40, 10)
    torch.testing.assert_close(plain.eval()(feats), trained.model(feats), rtol=0, atol=0)
    state = last_checkpoint(tmp_path)
    student = {name.removeprefix("student."): value for name, value in state.items() if name.startswith("student.")}
    plain.load_state_dict(student, strict=True)
    assert [name for name in state if name.startswith("terms.self_teacher.enhancement.")]
    assert "terms.self_teacher.head.weight" in state


def test_it_starts_from_the_weights_of_the_plain_student(small: Small) -> None:
    def student(**changes: object) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return build_learner(small(**changes), SimpleNamespace(classes=["a", "b"])).student.state_dict()

    plain, taught = student(), student(distill={"terms": [SELF]})
    assert all(torch.equal(value, taught[name]) for name, value in plain.items())


def test_all_parts_are_logged_and_the_self_teacher_learns(small: Small, small_data: Path, tmp_path: Path) -> None:
    often = {"log_every": 2, "checkpoint_batches": 0}
    run(small(distill={"terms": [SELF]}, train={"epochs": 5}, runtime=often), small_data, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    ends = [line for line in lines if line["event"] == "done"]
    assert all(line.keys() >= PARTS for line in lines)
    assert ends[-1]["self_class"] < 0.7 * ends[0]["self_class"]
    assert ends[-1]["class"] < ends[0]["class"]


def test_the_loss_is_the_weighted_sum_and_the_margin_reaches_both_heads(small: Small) -> None:
    learner = build_learner(small(distill={"terms": [SELF]}), SimpleNamespace(classes=list("abcde"))).eval()
    feats, labels = torch.randn(6, 40, 10), torch.arange(6) % 5
    learner.set_margin(0.07)
    assert learner.head.margin == learner.terms["self_teacher"].head.margin == 0.07
    losses = learner(feats, labels, labels, epoch=0.5)
    parts = losses.parts
    expected = parts["class"] + parts["self_class"] + 0.25 * (0.5 * parts["self_label"] + 3.0 * parts["self_feature"])
    assert parts.keys() == PARTS | {"self_accuracy"}
    torch.testing.assert_close(losses.total.detach(), expected)


def test_it_works_together_with_a_pretrained_teacher(small: Small, small_data: Path, tmp_path: Path) -> None:
    config = to_mapping(small(model={"embed_dim": 12}))
    torch.manual_seed(7)
    model = trained_model.build_model(config)
    head = trained_model.build_head(config, 12, 5)
    path = tmp_path / "teacher.pt"
    trained_model.save(path, trained_model.TrainedModel(config, model, head, [f"s{n}" for n in range(5)]))
    terms = [{"name": "label", "weight": 0.5}, SELF, {"name": "embedding", "weight": 2.0}]
    experiment = small(distill={"teacher": "conf/t.yaml", "terms": terms}, train={"epochs": 1})
    learner, trained = run(experiment, small_data, tmp_path / "out", str(path))
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert all(line.keys() >= PARTS | {"label", "embedding"} for line in lines)
    for name, value in model.state_dict().items():
        assert torch.equal(value, learner.teacher.model.state_dict()[name])
    trained_model.build_model(to_mapping(small())).load_state_dict(trained.model.state_dict(), strict=True)


class Stopped(Exception):
    pass


def test_a_stopped_run_resumes_bit_for_bit(
    small: Small, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small(distill={"terms": [{**SELF, "distance": "mse"}]}, train={"epochs": 1})
    run(experiment, small_data, tmp_path / "whole")
    steps, step = 0, Trainer._step

    def stopping(self: Trainer, batch: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 5:
            raise Stopped
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_step", stopping)
    with pytest.raises(Stopped):
        run(experiment, small_data, tmp_path / "parts")
    run(experiment, small_data, tmp_path / "parts")
    whole, parts = last_checkpoint(tmp_path / "whole"), last_checkpoint(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


@pytest.mark.parametrize("name", ["ecapa_c128", "ecapa_c256", "ecapa_c512", "resnet18", "resnet34", "bc_cmt_tiny"])
def test_the_confs_differ_from_the_plain_ones_only_in_the_term(name: str, repository: Path) -> None:
    plain, taught = (load(repository / "conf" / f"{name}{suffix}.yaml") for suffix in ("", "_skdfe"))
    ours, theirs = to_mapping(plain), to_mapping(taught)
    assert [term["name"] for term in theirs["distill"].pop("terms")] == ["self_teacher"]
    ours["distill"].pop("terms")
    assert ours == theirs
    learner = build_learner(taught, SimpleNamespace(classes=["a", "b"]))
    assert learner.terms["self_teacher"].embedding.out_features == learner.student.embed_dim
