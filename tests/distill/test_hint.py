"""KD of feature maps against float64 loops, with maps of different sizes, and errors for missing maps."""

from itertools import product

import pytest
import torch
from torch import Tensor

from wespeaker_lite import distill
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.distill.hint import Term
from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.distill.term import Partners
from wespeaker_lite.models.margin import HeadConfig

LABELS = torch.arange(2)


def shown(seed: int, *shapes: tuple[int, ...]) -> Outputs:
    draw = torch.Generator().manual_seed(seed)
    return Outputs(
        torch.zeros(2, 3), maps=[torch.randn(2, *shape, generator=draw).requires_grad_() for shape in shapes]
    )


def term(student: Outputs, teacher: Outputs, **section: object) -> Term:
    partners = Partners(student, teacher, HeadConfig(), 5, 100)
    (built,) = distill.build_terms([{"name": "hint", **section}], partners).values()
    return built


def loss_of(built: Term, student: Outputs, teacher: Outputs) -> float:
    return built(student, teacher, LABELS)["hint"].item()


def averaged(maps: Tensor, bands: int, frames: int) -> Tensor:
    """Maps (B, C, F, T), downsampled by averages with integer factors."""
    out = torch.zeros(*maps.shape[:2], bands, frames, dtype=torch.float64)
    high, wide = maps.shape[2] // bands, maps.shape[3] // frames
    for b, c, f, t in product(*map(range, out.shape)):
        cell = maps.double()[b, c, f * high : (f + 1) * high, t * wide : (t + 1) * wide]
        out[b, c, f, t] = cell.sum() / cell.numel()
    return out


def adapted(built: Term, maps: Tensor) -> Tensor:
    (conv,) = built.adaptors
    weight, bias = conv.weight[:, :, 0, 0].double(), conv.bias.double()
    return torch.stack([sum(row[c] * maps[:, c] for c in range(maps.shape[1])) for row in weight], 1) + bias.view(
        1, -1, 1, 1
    )


def normalised(maps: Tensor) -> Tensor:
    out = torch.empty_like(maps)
    for c in range(maps.shape[1]):
        values = maps[:, c]
        mean = values.sum() / values.numel()
        out[:, c] = (values - mean) / (((values - mean) ** 2).sum() / values.numel() + 1e-5) ** 0.5
    return out


def energy(maps: Tensor) -> Tensor:
    flat = torch.stack([(crop**2).sum(0).flatten() for crop in maps])
    return torch.stack([row / (row**2).sum() ** 0.5 for row in flat])


@pytest.mark.parametrize("distance", ["mse", "normalised", "attention"])
def test_each_distance_against_loops(distance: str) -> None:
    student, teacher = shown(1, (3, 4, 8)), shown(2, (5, 2, 4))
    built = term(student, teacher, distance=distance)
    ours, theirs = averaged(student.maps[0], 2, 4), teacher.maps[0].double()
    if distance == "attention":
        assert not list(built.parameters())
        expected = ((energy(ours) - energy(theirs)) ** 2).sum() / 2
    else:
        ours = adapted(built, ours)
        if distance == "normalised":
            ours, theirs = normalised(ours), normalised(theirs)
        expected = ((ours - theirs) ** 2).sum() / theirs.numel()
    assert loss_of(built, student, teacher) == pytest.approx(expected.item(), rel=1e-4)


def test_maps_without_bands_are_compared_with_maps_with_bands() -> None:
    student, teacher = shown(1, (3, 8)), shown(2, (5, 2, 4))
    built = term(student, teacher, distance="mse")
    flat = teacher.maps[0].double().reshape(2, 10, 1, 4)
    ours = adapted(built, averaged(student.maps[0][:, :, None], 1, 4))
    assert loss_of(built, student, teacher) == pytest.approx(((ours - flat) ** 2).mean().item(), rel=1e-4)


def test_layers_are_paired_by_number_and_only_the_student_learns() -> None:
    student, teacher = shown(1, (3, 8), (4, 8)), shown(2, (5, 8), (6, 8), (7, 8))
    built = term(student, teacher, layers=[[1, 2], [2, 3]])
    assert [(conv.in_channels, conv.out_channels) for conv in built.adaptors] == [(3, 6), (4, 7)]
    first, second = (
        term(student, teacher, layers=[pair], distance="attention")(student, teacher, LABELS)["hint"]
        for pair in ([1, 2], [2, 3])
    )
    both = term(student, teacher, layers=[[1, 2], [2, 3]], distance="attention")
    assert loss_of(both, student, teacher) == pytest.approx((first + second).item() / 2, rel=1e-5)
    built(student, teacher, LABELS)["hint"].backward()
    assert all(maps.grad.abs().sum() > 0 for maps in student.maps)
    assert all(maps.grad is None for maps in teacher.maps)


def test_missing_maps_are_errors() -> None:
    student, teacher = shown(1, (3, 8)), shown(2, (5, 8))
    with pytest.raises(InputError, match="the teacher has none; embeddings computed once"):
        term(student, Outputs(torch.zeros(2, 3)))
    with pytest.raises(InputError, match=r"layers \[1, 2\], but the student has 1 and the teacher 1"):
        term(student, teacher, layers=[[1, 2]])
    with pytest.raises(InputError, match="pairs of numbers from 1"):
        term(student, teacher, layers=[[0, 1]])
