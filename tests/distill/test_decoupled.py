"""Decoupled KD against float64 loops over crops and classes."""

import math

import pytest
import torch

from tests.distill.test_terms import LABELS, loss_of, outputs, term
from wespeaker_lite.distill.outputs import Outputs


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def looped(taught: torch.Tensor, teaching: torch.Tensor, labels: list[int], temperature: float) -> tuple[float, float]:
    """The two divergences, target against others and among the others, averaged over the batch."""
    target = others = 0.0
    for ours, theirs, label in zip(taught.tolist(), teaching.tolist(), labels, strict=True):
        q, p = (softmax([value / temperature for value in row]) for row in (ours, theirs))
        target += kl([p[label], 1 - p[label]], [q[label], 1 - q[label]])
        rest = [[value / (1 - row[label]) for n, value in enumerate(row) if n != label] for row in (p, q)]
        others += kl(*rest)
    return target / len(labels), others / len(labels)


@pytest.mark.parametrize("logits", ["cosine", "margin"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_both_parts_against_loops(temperature: float, logits: str) -> None:
    student, teacher = outputs(1), outputs(2)
    taught, teaching = (getattr(each, f"{logits}_logits").double() for each in (student, teacher))
    target, others = looped(taught, teaching, LABELS.tolist(), temperature)
    built = term(name="decoupled", temperature=temperature, logits=logits, target=0.5, nontarget=3.0)
    expected = temperature**2 * (0.5 * target + 3.0 * others)
    assert loss_of(built, student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_with_the_teachers_uncertainty_as_weight_it_equals_label_kd() -> None:
    """KL = KL of (p, 1 - p) + (1 - p) * KL of the others, so for one crop `nontarget` can be 1 - p."""
    student, teacher = outputs(1), outputs(2)
    one = [Outputs(*(field[:1] for field in (each.embedding, each.cosine_logits, each.margin_logits)))
           for each in (student, teacher)]  # fmt: skip
    doubt = 1 - softmax(one[1].cosine_logits[0].tolist())[0]
    built = term(name="decoupled", temperature=1.0, target=1.0, nontarget=doubt)
    plain = term(name="label", temperature=1.0)
    labels = LABELS[:1]
    torch.testing.assert_close(built(*one, labels)["decoupled"], plain(*one, labels)["label"], rtol=1e-4, atol=1e-6)


def test_a_teacher_of_some_classes_teaches_only_crops_of_these() -> None:
    student, teacher = outputs(1), outputs(2)
    teacher.classes = torch.tensor([1, 3, 6])
    teacher.cosine_logits = teacher.cosine_logits[:, :3]
    built = term(name="decoupled", temperature=2.0, target=1.0, nontarget=2.0)
    rows, places = [1, 3], [0, 1]  # the crops of classes 1 and 3, which the teacher has as its first and second
    taught = student.cosine_logits[rows][:, teacher.classes].double()
    target, others = looped(taught, teacher.cosine_logits[rows].double(), places, 2.0)
    expected = 2 / 5 * 4 * (target + 2 * others)
    assert loss_of(built, student, teacher).item() == pytest.approx(expected, rel=1e-4)
    teacher.classes = torch.tensor([5, 6, 0])[:2]
    teacher.cosine_logits = teacher.cosine_logits[:, :2]
    assert loss_of(built, student, teacher).item() == 0
