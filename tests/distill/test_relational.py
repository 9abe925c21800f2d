"""Relational KD against float64 loops over pairs and triples."""

import math

import pytest

from tests.distill.test_terms import loss_of, outputs, term
from wespeaker_lite.distill.outputs import Outputs

Vectors = list[list[float]]


def huber(difference: float) -> float:
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def between(a: list[float], b: list[float]) -> list[float]:
    return [y - x for x, y in zip(a, b, strict=True)]


def length(vector: list[float]) -> float:
    return math.sqrt(sum(value**2 for value in vector))


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / length(a) / length(b)


def distances(points: Vectors) -> list[float]:
    found = [length(between(a, b)) for n, a in enumerate(points) for b in points[n + 1 :]]
    return [distance * len(found) / sum(found) for distance in found]


def angles(points: Vectors) -> list[float]:
    count = range(len(points))
    return [
        cosine(between(points[j], points[i]), between(points[j], points[k]))
        for j in count for i in count for k in count if len({i, j, k}) == 3
    ]  # fmt: skip


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("part", "relations"), [("distances", distances), ("angles", angles)])
def test_each_part_against_loops(part: str, relations: object, normalise: bool) -> None:
    student, teacher = outputs(1, width=4), outputs(2, width=6)
    spaces = [each.embedding.double().tolist() for each in (student, teacher)]
    if normalise:
        spaces = [[[value / length(point) for value in point] for point in points] for points in spaces]
    pairs = list(zip(*map(relations, spaces), strict=True))
    expected = sum(huber(a - b) for a, b in pairs) / len(pairs)
    weights = {"distances": 0.0, "angles": 0.0} | {part: 3.0}
    built = term(4, 6, name="relational", normalise=normalise, **weights)
    assert loss_of(built, student, teacher).item() == pytest.approx(3 * expected, rel=1e-4)


def test_rotation_gives_loss_0_and_equal_embeddings_have_finite_gradients() -> None:
    student = outputs(1)
    turned = Outputs(student.embedding.detach().flip(1) * 2)
    assert loss_of(term(name="relational"), student, turned).item() == pytest.approx(0, abs=1e-6)
    equal = Outputs(student.embedding.detach()[[0, 0, 1, 2, 3]].requires_grad_())
    loss_of(term(name="relational"), equal, outputs(2)).backward()
    assert equal.embedding.grad.isfinite().all()
