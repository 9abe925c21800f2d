"""KD terms on a batch with unlabelled crops, whose label is -1."""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.distill.test_decoupled import looped
from tests.distill.test_terms import outputs, term
from tests.training.learners import CLASSES, TERMS, batch_of, learner_of
from wespeaker_lite.distill.self_teacher import refine
from wespeaker_lite.models.margin import accuracy, build_head, cross_entropy

LABELS = torch.tensor([3, -1, 0, -1, 2])
KNOWN = [0, 2, 4]
NETWORK = {"attention": "bc_cmt"}  # the others are tested with a ResNet


@pytest.mark.parametrize("logits", ["cosine", "margin"])
def test_label_uses_all_crops_and_no_label(logits: str) -> None:
    built, student, teacher = term(name="label", logits=logits), outputs(3), outputs(4)
    (loss,) = built(student, teacher, LABELS).values()
    (other,) = built(student, teacher, torch.tensor([1, 2, 3, 4, 5])).values()
    assert loss.item() == other.item()


def test_decoupled_takes_the_teachers_most_probable_class_as_target() -> None:
    built, student, teacher = term(name="decoupled", temperature=2.0), outputs(3), outputs(4)
    (loss,) = built(student, teacher, LABELS).values()
    best = [max(range(7), key=lambda n: row[n]) for row in teacher.cosine_logits.tolist()]
    targets = [best[n] if label < 0 else label for n, label in enumerate(LABELS.tolist())]
    target, nontarget = looped(student.cosine_logits, teacher.cosine_logits, targets, 2.0)
    assert loss.item() == pytest.approx(4 * (target + 8 * nontarget), rel=1e-5)


@pytest.mark.parametrize("name", ["label", "decoupled"])
def test_a_teacher_of_some_classes_teaches_unlabelled_crops(name: str) -> None:
    built, student, teacher = term(name=name, temperature=1.0), outputs(3), outputs(4)
    teacher.cosine_logits = teacher.cosine_logits[:, :3].detach()
    teacher.classes = torch.tensor([1, 3, 6])
    (loss,) = built(student, teacher, LABELS).values()
    loss.backward()
    (used,) = torch.where(student.cosine_logits.grad.abs().sum(1) > 0)
    assert used.tolist() == [0, 1, 3]  # the labels 0 and 2 are of classes that the teacher lacks
    assert student.cosine_logits.grad[:, [0, 2, 4, 5]].abs().sum() == 0


def test_cross_entropy_and_accuracy_are_over_labelled_crops() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses = [
        math.log(sum(map(math.exp, logits[n].tolist()))) - logits[n, LABELS[n]].item() for n in KNOWN
    ]  # fmt: skip
    loss = cross_entropy(logits, LABELS)
    assert loss.item() == pytest.approx(sum(losses) / 3, rel=1e-6)
    loss.backward()
    assert [row.abs().sum().item() > 0 for row in logits.grad] == [label >= 0 for label in LABELS.tolist()]
    right = sum(logits[n].argmax() == LABELS[n] for n in KNOWN)
    assert accuracy(logits, LABELS).item() == pytest.approx(right.item() / 3)
    nobody = torch.full((5,), -1)
    logits.grad = None
    cross_entropy(logits, nobody).backward()
    assert (cross_entropy(logits, nobody).item(), accuracy(logits, nobody).item()) == (0, 0)
    assert logits.grad.abs().sum() == 0


def test_labelled_crops_have_the_loss_and_gradient_of_plain_cross_entropy_bit_for_bit() -> None:
    logits, labels = 20 * torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 5
    found = []
    for loss in (cross_entropy, F.cross_entropy):
        ours = logits.clone().requires_grad_()
        value = loss(ours, labels)
        value.backward()
        found.append((value.item(), ours.grad.tolist()))
    assert found[0] == found[1]
    assert accuracy(logits, labels) == (logits.argmax(1) == labels).float().mean()


@pytest.mark.parametrize("head", [{"name": "aam", "subcenters": 2}, {"name": "am"}, {"name": "softmax", "margin": 0.0}])
def test_an_unlabelled_crop_gets_no_margin(head: dict) -> None:
    torch.manual_seed(0)
    built = build_head(head, 6, 4)
    embeddings = torch.randn(5, 6)
    cosines, logits = built.cosines_and_logits(embeddings, LABELS)
    _, labelled = built.cosines_and_logits(embeddings[KNOWN], LABELS[KNOWN])
    torch.testing.assert_close(logits[KNOWN], labelled)
    expected = built(embeddings, LABELS) if head["name"] == "softmax" else built.scale * cosines
    torch.testing.assert_close(logits[[1, 3]], expected[[1, 3]])


@pytest.mark.parametrize("name", TERMS)
def test_each_term_trains_by_a_batch_with_and_of_unlabelled_crops(name: str) -> None:
    learner = learner_of(NETWORK.get(name, "resnet"), [{"name": name}])
    feats, labels = batch_of()
    labels[::2] = -1
    for given in (labels, torch.full_like(labels, -1)):
        learner.zero_grad()
        losses = learner(feats, given, torch.arange(len(feats)), epoch=1.0)
        assert losses.total.isfinite()
        losses.total.backward()
        gradients = [p.grad for p in learner.student.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert sum(gradient.abs().sum() for gradient in gradients) > 0
    assert losses.parts["class"] == losses.correct == 0


@pytest.mark.parametrize("crops", ["all", "right", "confidence"])
def test_the_self_teacher_weighs_and_counts_by_labelled_crops(crops: str) -> None:
    options = {"name": "self_teacher", "crops": crops, "temperature": 1.0}
    learner = learner_of("resnet", [options]).eval()
    built = learner.terms["self_teacher"]
    built.head.scale = 2.0  # so that no probability is near 0
    feats, labels = batch_of()
    student = learner.student.activations(feats)
    logits = learner.head.scale * learner.head.cosine(student.embedding)
    best = refine(built, student.maps, labels)[1].argmax(1)
    labels = torch.where(torch.arange(len(labels)) < 2, best, (best + 1) % CLASSES)  # two are right
    labels[::2] = -1
    losses = learner(feats, labels, torch.arange(len(feats)), epoch=1.0)
    _, theirs, with_margin = refine(built, student.maps, labels)
    known = [n for n, label in enumerate(labels.tolist()) if label >= 0]
    named = [-torch.log_softmax(with_margin[n], 0)[labels[n]].item() for n in known]
    assert losses.parts["self_class"].item() == pytest.approx(sum(named) / len(known), rel=1e-4)
    right = [n for n in known if theirs[n].argmax() == labels[n]]
    assert losses.parts["self_accuracy"].item() == pytest.approx(len(right) / len(known))
    weights = {
        "all": [1.0] * len(labels),
        "right": [float(n in right) for n in range(len(labels))],
        "confidence": [theirs[n].softmax(0)[labels[n]].item() if n in known else 0.0 for n in range(len(labels))],
    }[crops]
    p, q = (each.detach().double().softmax(1) for each in (theirs, logits))
    divergences = (p * (p / q).log()).sum(1).tolist()
    expected = sum(weight * kl for weight, kl in zip(weights, divergences, strict=True)) / len(labels)
    assert losses.parts["self_label"].item() == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert (len(right), len(known)) == (1, 4)
