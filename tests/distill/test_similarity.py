"""Similarity-preserving KD against float64 loops, of a batch and of a bank."""

import math

import pytest
import torch

from tests.distill.test_relational import cosine, length
from tests.distill.test_terms import loss_of, outputs, partners, term
from wespeaker_lite import distill
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.distill.term import Partners

Matrix = list[list[float]]


def matrix(rows: torch.Tensor, columns: torch.Tensor) -> Matrix:
    return [[cosine(a, b) for b in columns.double().tolist()] for a in rows.double().tolist()]


def mse(ours: Matrix, theirs: Matrix) -> float:
    squares = [(a - b) ** 2 for rows in zip(ours, theirs, strict=True) for a, b in zip(*rows, strict=True)]
    return sum(squares) / len(squares)


def unit(rows: Matrix) -> Matrix:
    return [[value / length(row) for value in row] for row in rows]


def kl(ours: Matrix, theirs: Matrix, temperature: float) -> float:
    total = 0.0
    for q, p in zip(ours, theirs, strict=True):
        q, p = ([math.exp(value / temperature) for value in row] for row in (q, p))
        q, p = ([value / sum(row) for value in row] for row in (q, p))
        total += sum(b * math.log(b / a) for a, b in zip(q, p, strict=True))
    return total / len(ours)


def off_diagonal(square: Matrix) -> Matrix:
    return [row[:n] + row[n + 1 :] for n, row in enumerate(square)]


@pytest.mark.parametrize(
    ("section", "reference"),
    [
        ({"distance": "mse"}, lambda ours, theirs: mse(off_diagonal(ours), off_diagonal(theirs))),
        ({"distance": "rows"}, lambda ours, theirs: mse(unit(ours), unit(theirs))),
        ({"temperature": 0.5}, lambda ours, theirs: kl(off_diagonal(ours), off_diagonal(theirs), 0.5)),
    ],
)
def test_the_matrix_of_a_batch_against_loops(section: dict, reference: object) -> None:
    student, teacher = outputs(1, width=4), outputs(2, width=6)
    expected = reference(*(matrix(each.embedding, each.embedding) for each in (student, teacher)))
    built = term(4, 6, name="similarity", **section)
    assert loss_of(built, student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_a_bank_serves_student_and_teacher_and_is_not_saved() -> None:
    student, teacher = outputs(1, width=4), outputs(2, width=6)
    bank = torch.randn(9, 6, generator=torch.Generator().manual_seed(3))
    sizes = partners(4, 6)
    with_bank = Partners(sizes.student, sizes.teacher, sizes.head, 7, 100, bank)
    section = {"name": "similarity", "against": "bank", "temperature": 0.5, "bank_size": 4}
    (built,) = distill.build_terms([section], with_bank).values()
    assert len(built.bank) == 3  # every third of nine
    projected = student.embedding.double() @ built.projection.weight.double().T
    expected = kl(matrix(projected, bank[::3]), matrix(teacher.embedding, bank[::3]), 0.5)
    assert loss_of(built, student, teacher).item() == pytest.approx(expected, rel=1e-4)
    assert list(built.state_dict()) == ["projection.weight"]
    with pytest.raises(InputError, match=r"has no bank.*source: utterance"):
        distill.build_terms([section], sizes)
