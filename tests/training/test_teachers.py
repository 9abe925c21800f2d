"""Training with a teacher: its weights do not change, every term is logged, and a mismatch is an error."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import SMALL
from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.data.crops import CropDataset
from wespeaker_lite.distill.outputs import outputs_of
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.kaldi.tables import read_table, write_table
from wespeaker_lite.recipe import resolved, trained_model
from wespeaker_lite.recipe.experiment import Experiment, from_given, load
from wespeaker_lite.training.job import Job, build_learner, open_dataset
from wespeaker_lite.training.learner import Learner
from wespeaker_lite.training.trainer import Trainer

Small = Callable[..., Experiment]
BOTH = [{"name": "label", "weight": 0.5}, {"name": "embedding", "weight": 2.0, "ramp_epochs": 2.0}]


@pytest.fixture(scope="module")
def teacher(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained teacher of the five speakers, wider than the student."""
    experiment = small(model={"embed_dim": 12})
    torch.manual_seed(7)
    config = to_mapping(experiment)
    model = trained_model.build_model(config)
    head = trained_model.build_head(config, model.embed_dim, 5)
    path = tmp_path_factory.mktemp("teacher") / "final.pt"
    trained_model.save(path, trained_model.TrainedModel(config, model, head, [f"s{n}" for n in range(5)]))
    return path


def student(small: Small, terms: list[dict], **changes: object) -> Experiment:
    return small(distill={"teacher": "conf/t.yaml", "terms": terms}, **changes)


def test_the_teacher_is_unchanged_and_each_term_is_logged(
    small: Small, small_data: Path, teacher: Path, tmp_path: Path
) -> None:
    experiment = student(small, BOTH, train={"epochs": 2})
    dataset = CropDataset(small_data, experiment.crop, 0)
    learner = build_learner(experiment, dataset, str(teacher))
    before = {name: value.clone() for name, value in learner.teacher.state_dict().items()}
    Trainer(learner, dataset, experiment, tmp_path).run()
    assert not learner.teacher.model.training
    assert all(torch.equal(value, before[name]) for name, value in learner.teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in learner.teacher.parameters())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all({"loss", "class", "label", "embedding"} <= line.keys() for line in lines)
    checkpoint = next((tmp_path / "checkpoints").glob("*.pt"))
    names = torch.load(checkpoint)["learner"]
    assert "terms.embedding.projection.weight" in names
    assert not [name for name in names if "teacher" in name]
    plain = trained_model.build_model(to_mapping(small()))
    plain.load_state_dict(trained_model.load(tmp_path / "final.pt").model.state_dict())


def test_the_loss_is_the_weighted_ramped_sum(small: Small, small_data: Path, teacher: Path) -> None:
    experiment = student(small, BOTH)
    dataset = CropDataset(small_data, experiment.crop, 0)
    learner = build_learner(experiment, dataset, str(teacher)).eval()
    learner.student.activations = learner.teacher.model.activations = None  # no term here looks inside
    feats, labels, indices = torch.randn(6, 40, 10), torch.arange(6) % 5, torch.arange(6)
    losses = learner(feats, labels, indices, epoch=0.5)
    parts = losses.parts
    expected = parts["class"] + 0.5 * parts["label"] + 2.0 * (0.5 / 2.0) * parts["embedding"]
    torch.testing.assert_close(losses.total.detach(), expected)


def test_the_teacher_sees_the_students_crop(small: Small, small_data: Path, teacher: Path) -> None:
    experiment = student(small, BOTH[:1])
    dataset = CropDataset(small_data, experiment.crop, 0)
    learner = build_learner(experiment, dataset, str(teacher))
    trained = trained_model.load(teacher)
    feats, labels = torch.randn(4, 40, 10), torch.tensor([0, 1, 2, 3])
    outputs = learner.teacher(feats, labels, labels)
    with torch.no_grad():
        embedding = trained.model(feats)
        torch.testing.assert_close(outputs.embedding, embedding)
        torch.testing.assert_close(outputs.cosine_logits, 32.0 * trained.head.cosine(embedding))


def test_embeddings_from_an_ark_are_matched_by_utterance(
    small: Small, small_data: Path, teacher: Path, tmp_path: Path
) -> None:
    experiment = small(distill={"embeddings": "set below", "terms": BOTH[1:]})
    dataset = CropDataset(small_data, experiment.crop, 0)
    vectors = {
        name: np.random.default_rng(row).normal(size=12).astype(np.float32)
        for row, name in enumerate(dataset.utterances)
    }
    with ArkWriter(tmp_path / "xvector") as writer:
        for name, vector in vectors.items():
            writer.write(name, vector)
    learner = build_learner(experiment, dataset, "", str(tmp_path / "xvector.scp"))
    indices = torch.tensor([3, 31])
    outputs = learner.teacher(torch.zeros(2, 40, 10), torch.tensor([0, 3]), indices)
    for row, index in enumerate(indices.tolist()):
        np.testing.assert_array_equal(outputs.embedding[row].numpy(), vectors[dataset.utterances[index]])
    assert outputs.cosine_logits is None
    feats, labels = torch.randn(2, 40, 10), torch.tensor([0, 3])
    learner.eval()
    ours = outputs_of(learner.student, learner.head, feats, labels)
    expected = learner.terms["embedding"](ours, outputs, labels)["embedding"]
    torch.testing.assert_close(learner(feats, labels, indices, epoch=1.0).parts["embedding"], expected.detach())
    # with the teacher's head at hand, label KD works from the ark as well, whatever features the network reads
    both = student(small, BOTH, crop={"cmn": False})
    outputs = build_learner(both, dataset, str(teacher), str(tmp_path / "xvector.scp")).teacher(
        torch.zeros(2, 40, 10), torch.tensor([0, 3]), indices
    )
    assert outputs.cosine_logits.shape == (2, 5)


def test_an_utterance_without_embedding_is_named(small: Small, small_data: Path, tmp_path: Path) -> None:
    experiment = small(distill={"embeddings": "set below", "terms": BOTH[1:]})
    dataset = CropDataset(small_data, experiment.crop, 0)
    with ArkWriter(tmp_path / "xvector") as writer:
        for name in list(dataset.utterances)[:-1]:
            writer.write(name, np.ones(12, dtype=np.float32))
    with pytest.raises(InputError, match="no embedding of 1 training utterances, such as s4-7"):
        build_learner(experiment, dataset, "", str(tmp_path / "xvector.scp"))


def test_other_speakers_or_other_features_do_not_fit(
    small: Small, small_data: Path, teacher: Path, tmp_path: Path
) -> None:
    trained = trained_model.load(teacher)
    trained.classes[2] = "stranger"
    trained_model.save(tmp_path / "final.pt", trained)
    experiment = student(small, BOTH)
    dataset = CropDataset(small_data, experiment.crop, 0)
    with pytest.raises(InputError, match=r"not the same \(such as s2"):
        build_learner(experiment, dataset, str(tmp_path / "final.pt"))
    other = student(small, BOTH, features={"num_mels": 12})
    with pytest.raises(InputError, match="other features than the student: num_mels 10, not 12"):
        build_learner(other, dataset, str(teacher))
    other = student(small, BOTH, features={"frame_shift_ms": 20.0}, crop={"cmn": False})
    with pytest.raises(InputError, match=r"frame_shift_ms 10\.0, not 20\.0; crop.cmn True, not False"):
        build_learner(other, dataset, str(teacher))


PERTURBED = [f"{prefix}s{n}" for prefix in ("", "sp0.9-", "sp1.1-") for n in range(5)]


def learner_with(small: Small, data: Path, path: Path, classes: list[str], student_classes: list[str]) -> Learner:
    """A student with label KD from an untrained teacher with other classes."""
    experiment = student(small, BOTH[:1])
    torch.manual_seed(7)
    config = to_mapping(experiment)
    model = trained_model.build_model(config)
    head = trained_model.build_head(config, model.embed_dim, len(classes))
    trained_model.save(path, trained_model.TrainedModel(config, model, head, classes))
    dataset = CropDataset(data, experiment.crop, 0)
    dataset.classes = student_classes
    return build_learner(experiment, dataset, str(path)).eval()


def test_a_teacher_with_more_classes_teaches_the_common_classes(small: Small, small_data: Path, tmp_path: Path) -> None:
    shuffled = PERTURBED[::-1]
    learner = learner_with(small, small_data, tmp_path / "final.pt", shuffled, PERTURBED[:5])
    feats, labels = torch.randn(6, 40, 10), torch.tensor([0, 1, 2, 3, 4, 4])
    outputs = learner.teacher(feats, labels, labels)
    trained = trained_model.load(tmp_path / "final.pt")
    columns = [shuffled.index(name) for name in PERTURBED[:5]]
    with torch.no_grad():
        expected = trained.head.scale * trained.head.cosine(trained.model(feats))[:, columns]
    torch.testing.assert_close(outputs.cosine_logits, expected)
    assert learner(feats, labels, labels, 0.0).parts["label"] > 0


def test_a_teacher_without_perturbed_classes_teaches_crops_at_their_own_speed(
    small: Small, small_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    learner = learner_with(small, small_data, tmp_path / "final.pt", PERTURBED[:5], PERTURBED)
    assert "the teacher's 5 classes and the student's 15 both know 5" in caplog.text
    feats, labels = torch.randn(4, 40, 10), torch.tensor([3, 7, 0, 14])  # 7 and 14 are perturbed
    loss = learner(feats, labels, labels, 0.0).parts["label"]
    with torch.no_grad():
        ours = 32.0 * learner.head.cosine(learner.student(feats))[:, :5].double()
        theirs = learner.teacher(feats, labels, labels).cosine_logits.double()
    expected = 0.0
    for row in (0, 2):
        p, q = torch.softmax(theirs[row] / 4.0, 0), torch.softmax(ours[row] / 4.0, 0)
        expected += 16.0 * float((p * (p / q).log()).sum()) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    none_known = learner(feats[1:2], labels[1:2], labels[1:2], 0.0)
    assert none_known.parts["label"] == 0
    none_known.total.backward()


def test_the_same_speakers_at_other_speeds_are_not_common_classes(
    small: Small, small_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="they are at other speeds"):
        learner_with(small, small_data, tmp_path / "final.pt", PERTURBED[5:], PERTURBED[:5])


BC_CMT = {"name": "bc_cmt", "channels": [8, 8], "depth": [1, 1], "strides": [1, 1], "bands": 5, "embed_dim": 8,
          "pool_bottleneck": 4}  # fmt: skip


@pytest.fixture(scope="module")
def attentive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained BC-CMT of the five speakers, deeper than the student."""
    config = to_mapping(from_given({**SMALL, "model": {**BC_CMT, "depth": [1, 2]}}, "attentive"))
    torch.manual_seed(7)
    model = trained_model.build_model(config)
    head = trained_model.build_head(config, model.embed_dim, 5)
    path = tmp_path_factory.mktemp("attentive") / "final.pt"
    trained_model.save(path, trained_model.TrainedModel(config, model, head, [f"s{n}" for n in range(5)]))
    return path


def test_attention_maps_labels_and_embeddings_teach_together(small_data: Path, attentive: Path, tmp_path: Path) -> None:
    terms = [{"name": "attention", "weight": 10.0}, *BOTH]
    given = {**SMALL, "model": BC_CMT, "distill": {"teacher": "conf/t.yaml", "terms": terms}}
    experiment = from_given({**given, "train": {**SMALL["train"], "epochs": 2}}, "student")
    dataset = CropDataset(small_data, experiment.crop, 0)
    learner = build_learner(experiment, dataset, str(attentive))
    before = {name: value.clone() for name, value in learner.teacher.state_dict().items()}
    Trainer(learner, dataset, experiment, tmp_path).run()
    assert all(torch.equal(value, before[name]) for name, value in learner.teacher.state_dict().items())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all({"loss", "class", "attention", "label", "embedding"} <= line.keys() for line in lines)
    trained_model.load(tmp_path / "final.pt")


def test_the_teachers_maps_have_no_gradient_graph(small_data: Path, attentive: Path) -> None:
    given = {**SMALL, "model": BC_CMT, "distill": {"teacher": "conf/t.yaml", "terms": [{"name": "attention"}]}}
    dataset = CropDataset(small_data, from_given(given, "student").crop, 0)
    learner = build_learner(from_given(given, "student"), dataset, str(attentive))
    shown = learner.teacher(torch.randn(2, 40, 10), torch.tensor([0, 1]), torch.tensor([0, 1]), inside=True)
    parts = [part for stage in shown.attention for block in stage for part in vars(block).values()]
    assert len(parts) == 9
    assert not any(part.requires_grad or part.grad_fn for part in (*parts, *shown.maps, shown.embedding))


def test_different_strides_over_time_are_an_error(small_data: Path, attentive: Path) -> None:
    model = {**BC_CMT, "stem_stride": [2, 1]}
    given = {**SMALL, "model": model, "distill": {"teacher": "conf/t.yaml", "terms": [{"name": "attention"}]}}
    experiment = from_given(given, "student")
    dataset = CropDataset(small_data, experiment.crop, 0)
    with pytest.raises(InputError, match="the student's stride over time is 1, the teacher's 2"):
        build_learner(experiment, dataset, str(attentive))


def test_two_teachers_by_crops_and_by_arks(small: Small, small_data: Path, teacher: Path, tmp_path: Path) -> None:
    distill = {"teachers": ["conf/a.yaml", "conf/b.yaml"], "teacher_weights": [1.0, 3.0], "terms": BOTH}
    experiment = small(distill=distill, train={"epochs": 1})
    dataset = CropDataset(small_data, experiment.crop, 0)
    learner = build_learner(experiment, dataset, [str(teacher), str(teacher)]).eval()
    alone = build_learner(student(small, BOTH), dataset, str(teacher)).eval()
    alone.student.load_state_dict(learner.student.state_dict())
    alone.head.load_state_dict(learner.head.state_dict())
    feats, labels, indices = torch.randn(6, 40, 10), torch.arange(6) % 5, torch.arange(6)
    several, single = (each(feats, labels, indices, epoch=1.0).parts for each in (learner, alone))
    torch.testing.assert_close(several["label"], single["label"])  # of two equal teachers
    Trainer(learner, dataset, experiment, tmp_path).run()
    assert not [name for name in learner.state_dict() if "teacher" in name or "shares" in name]
    arks = tmp_path / "a", tmp_path / "b"
    for ark, width in zip(arks, (3, 12), strict=True):
        with ArkWriter(ark) as writer:
            for row, name in enumerate(dataset.utterances):
                writer.write(name, np.random.default_rng(row).normal(size=width).astype(np.float32))
    learner = build_learner(small(distill={**distill, "terms": BOTH[1:]}), dataset, "", [f"{ark}.scp" for ark in arks])
    assert [part.projection.weight.shape for part in learner.terms["embedding"].each] == [(3, 8), (12, 8)]
    assert learner(feats, labels, indices, epoch=1.0).total.isfinite()


def test_centroids_of_the_speakers_are_used_as_a_head(small: Small, small_data: Path, tmp_path: Path) -> None:
    section = {"embeddings": "set below", "classifier": "centroids", "terms": BOTH[:1]}
    experiment = small(distill=section, head={"margin": 0.1, "scale": 20.0})
    dataset = CropDataset(small_data, experiment.crop, 0)
    vectors = np.random.default_rng(0).normal(size=(len(dataset), 12))
    with ArkWriter(tmp_path / "xvector") as writer:
        for name, vector in zip(dataset.utterances, vectors, strict=True):
            writer.write(name, vector.astype(np.float32))
    learner = build_learner(experiment, dataset, "", str(tmp_path / "xvector.scp"))
    indices = torch.tensor([3, 31])
    shown = learner.teacher(torch.zeros(2, 40, 10), torch.tensor([0, 3]), indices)
    unit = [vector / np.sqrt((vector**2).sum()) for vector in vectors]
    for row, index in enumerate(indices.tolist()):
        for speaker in range(5):
            mean = sum(unit[n] for n in range(len(dataset)) if dataset.labels[n] == speaker)
            expected = 20 * (unit[index] @ mean) / np.sqrt((mean**2).sum())
            assert shown.cosine_logits[row, speaker].item() == pytest.approx(expected, abs=1e-4)
    assert learner(torch.randn(2, 40, 10), torch.tensor([0, 3]), indices, epoch=1.0).total.isfinite()


@pytest.fixture
def partly_labelled(small_data: Path, tmp_path: Path) -> Path:
    """The small data, with the utterances of speaker s4 unlabelled."""
    data = tmp_path / "partly"
    shutil.copytree(small_data, data)
    speakers = read_table(data / "utt2spk")
    unknown = [utterance for utterance, speaker in speakers.items() if speaker == "s4"]
    write_table(data / "utt2spk", speakers | {utterance: utterance for utterance in unknown})
    write_table(data / "spk2unlabelled", dict.fromkeys(unknown, "yes"))
    return data


def test_unlabelled_utterances_train_by_embeddings_alone(
    small: Small, partly_labelled: Path, teacher: Path, tmp_path: Path
) -> None:
    terms = [{"name": "embedding"}, {"name": "similarity", "against": "bank"}]
    section = {"embeddings": str(tmp_path / "xvector.scp"), "terms": terms}
    experiment = small(distill=section, train={"epochs": 2, "unlabelled_share": 0.5, "sampling": "speaker"})
    dataset = CropDataset(partly_labelled, experiment.crop, 0)
    vectors = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    with ArkWriter(tmp_path / "xvector") as writer:
        for name, vector in zip(dataset.utterances, vectors, strict=True):
            writer.write(name, vector)
    learner = build_learner(experiment, dataset)
    Trainer(learner, dataset, experiment, tmp_path / "out").run()
    assert trained_model.load(tmp_path / "out/final.pt").classes == ["s0", "s1", "s2", "s3"]
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) and 0 <= line["accuracy"] <= 1 for line in lines)
    # In a batch of unlabelled crops alone, the gradient is that of the terms, and the head gets none.
    feats, indices = torch.randn(6, 40, 10), torch.arange(34, 40)
    losses = learner(feats, torch.full((6,), -1), indices, epoch=1.0)
    assert losses.total.item() == pytest.approx(
        sum(losses.weighted[name].item() for name in ("embedding", "similarity"))
    )
    learner.zero_grad()
    losses.total.backward()
    assert learner.head.weight.grad.abs().sum() == 0
    target = torch.from_numpy(vectors[34:])
    ours = learner.terms["embedding"].projection(learner.student(feats))
    expected = (1 - torch.cosine_similarity(ours, target)).mean().item()
    assert losses.parts["embedding"].item() == pytest.approx(expected, abs=1e-3)


def test_no_centroid_has_unlabelled_utterances(small: Small, partly_labelled: Path, tmp_path: Path) -> None:
    section = {"embeddings": "set below", "classifier": "centroids", "terms": BOTH[:1]}
    experiment = small(distill=section)
    dataset = CropDataset(partly_labelled, experiment.crop, 0)
    vectors = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    with ArkWriter(tmp_path / "xvector") as writer:
        for name, vector in zip(dataset.utterances, vectors, strict=True):
            writer.write(name, vector)
    learner = build_learner(experiment, dataset, "", str(tmp_path / "xvector.scp"))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    means = np.stack([unit[8 * n : 8 * n + 8].mean(0) for n in range(4)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(learner.teacher.head.head.weight[0].numpy(), means, atol=1e-5)


def test_a_teacher_of_other_speeds_gives_unlabelled_crops_no_margin(
    small: Small, small_data: Path, tmp_path: Path
) -> None:
    ours, more = [f"s{n}" for n in range(5)], ["s0", "s1", "s2", "s3", "s4", "sp0.9-s4"]
    learner = learner_with(small, small_data, tmp_path / "t.pt", more, ours)
    embeddings, labels = torch.randn(3, learner.teacher.embed_dim), torch.tensor([-1, 4, -1])
    cosines, logits = learner.teacher.head.cosines_and_logits(embeddings, labels)
    same = (logits / learner.teacher.head.scale - cosines).abs() < 1e-6
    assert same.all(1).tolist() == [True, False, True]


def test_without_kd_terms_unlabelled_utterances_are_left_out(
    small: Small, small_data: Path, partly_labelled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "config.yaml"
    resolved.write(config, to_mapping(small(train={"epochs": 1, "unlabelled_share": 0.5})))
    with caplog.at_level("INFO"):
        dataset = open_dataset(Job(config, partly_labelled, tmp_path), load(config))
    assert "8 unlabelled utterances are left out" in caplog.text
    assert "32 utterances of 4 speakers from" in caplog.text
    assert (len(dataset), dataset.classes) == (32, ["s0", "s1", "s2", "s3"])
    kd = student(small, BOTH, train={"unlabelled_share": 0.5})
    with caplog.at_level("INFO"):
        dataset = open_dataset(Job(config, partly_labelled, tmp_path), kd)
    assert len(dataset) == 40
    assert "32 utterances of 4 speakers and 8 unlabelled ones from" in caplog.text
    with pytest.raises(InputError, match=r"train.unlabelled_share is set, but no utterance is unlabelled"):
        open_dataset(Job(config, small_data, tmp_path), kd)
