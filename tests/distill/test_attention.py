"""KD of attention maps against float64 loops, the pairs of blocks, and maps that cannot be compared."""

import math

import pytest
import torch

from wespeaker_lite import distill, models
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.distill.outputs import Outputs, outputs_of
from wespeaker_lite.distill.term import Partners, Term
from wespeaker_lite.models.activations import Attention
from wespeaker_lite.models.margin import HeadConfig

LABELS = torch.arange(2)


def block(seed: int, heads: int = 3, frames: int = 5, width: int = 4) -> Attention:
    draw = torch.Generator().manual_seed(seed)
    shape = (2, heads, frames, width)
    return Attention(*(torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(3)))


def outputs(*stages: list[Attention], frames: int = 5) -> Outputs:
    return Outputs(torch.zeros(2, 6), maps=[torch.zeros(2, 3, 4, frames)], attention=list(stages))


def term(student: Outputs, teacher: Outputs | None, **options: object) -> Term:
    partners = Partners(student, teacher, HeadConfig(), 7, frames=10)
    (built,) = distill.build_terms([{"name": "attention", **options}], partners).values()
    return built


def loss_of(student: Outputs, teacher: Outputs, **options: object) -> torch.Tensor:
    (loss,) = term(student, teacher, **options)(student, teacher, LABELS).values()
    return loss


def scores_by_hand(left: torch.Tensor, right: torch.Tensor) -> list[list[float]]:
    width = left.shape[-1]
    return [[sum((a * b).tolist()) / math.sqrt(width) for b in right] for a in left]


def row_kl(teacher: list[float], student: list[float]) -> float:
    p, q = ([math.exp(score) for score in row] for row in (teacher, student))
    return sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True))


def by_hand(ours: Attention, theirs: Attention, distance: str) -> float:
    batch, heads, frames, _ = ours.query.shape
    total = 0.0
    for utterance in range(batch):
        for head in range(heads):
            names = ("value", "value") if distance == "values" else ("query", "key")
            taught, teaching = (
                scores_by_hand(*(getattr(each, name)[utterance, head].detach() for name in names))
                for each in (ours, theirs)
            )
            for mine, target in zip(taught, teaching, strict=True):
                if distance == "centred":
                    mine, target = ([score - sum(row) / frames for score in row] for row in (mine, target))
                if distance in ("scores", "centred"):
                    total += sum((a - b) ** 2 for a, b in zip(mine, target, strict=True)) / frames
                else:
                    total += row_kl(target, mine)
    return total / (batch * heads * frames)


@pytest.mark.parametrize("distance", ["kl", "scores", "centred", "values"])
def test_distances_are_means_over_pairs_heads_and_rows(distance: str) -> None:
    student = outputs([block(0), block(1)], [block(2)])
    teacher = outputs([block(3, width=6)], [block(4, width=6), block(5, width=6), block(6, width=6)])
    expected = by_hand(student.attention[0][1], teacher.attention[0][0], distance)
    expected += by_hand(student.attention[1][0], teacher.attention[1][2], distance)
    assert loss_of(student, teacher, distance=distance).item() == pytest.approx(expected / 2)


def test_centred_scores_ignore_a_constant_per_row() -> None:
    ours = block(0)
    shifted = Attention(ours.query, ours.key + 3.0, ours.value)  # adds the same number to each score of a row
    student, teacher = outputs([ours]), outputs([shifted])
    assert loss_of(student, teacher, distance="scores").item() > 0.1
    assert loss_of(student, teacher, distance="centred").item() == pytest.approx(0, abs=1e-12)


def test_blocks_are_paired_within_their_stage() -> None:
    student = outputs([block(0), block(1)], [block(2)])
    teacher = outputs([block(3), block(4), block(5), block(6)], [block(7), block(8)])
    pairs = [(0, 0, 0, 1), (0, 1, 0, 3), (1, 0, 1, 1)]
    expected = sum(by_hand(student.attention[a][b], teacher.attention[c][d], "kl") for a, b, c, d in pairs)
    assert loss_of(student, teacher, pairs="blocks").item() == pytest.approx(expected / 3)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [(4, 4, [0, 1, 2, 3]), (8, 12, [1, 2, 4, 5, 7, 8, 10, 11]), (3, 2, [0, 1, 1]), (1, 3, [2]), (4, 1, [0, 0, 0, 0])],
)
def test_uniform_pairs_include_the_last_blocks_and_are_evenly_spaced(
    ours: int, theirs: int, expected: list[int]
) -> None:
    student, teacher = (outputs([block(seed) for seed in range(count)]) for count in (ours, theirs))
    pairs = term(student, teacher, pairs="uniform")._pairs(student, teacher)
    assert [mine is block for (mine, _), block in zip(pairs, student.attention[0], strict=True)] == [True] * ours
    assert [next(n for n, block in enumerate(teacher.attention[0]) if block is its) for _, its in pairs] == expected


def test_uniform_pairs_have_the_same_relative_depth() -> None:
    student = outputs([block(0)], [block(1)])
    teacher = outputs([block(2), block(3), block(4)], [block(5), block(6)])
    expected = by_hand(student.attention[0][0], teacher.attention[0][2], "kl")
    expected += by_hand(student.attention[1][0], teacher.attention[1][1], "kl")
    assert loss_of(student, teacher, pairs="uniform").item() == pytest.approx(expected / 2)


@pytest.mark.parametrize("distance", ["kl", "scores", "values"])
def test_the_mean_over_heads_compares_different_numbers_of_heads(distance: str) -> None:
    ours, theirs = block(0, heads=3), block(1, heads=2)
    loss = loss_of(outputs([ours]), outputs([theirs]), heads="mean", distance=distance)
    maps = []
    for each in (ours, theirs):
        left, right = (each.value, each.value) if distance == "values" else (each.query, each.key)
        scores = torch.einsum("bhid,bhjd->bhij", left, right) / 2
        maps.append((scores if distance == "scores" else scores.softmax(-1)).mean(1))
    difference = (maps[0] - maps[1]).square() if distance == "scores" else maps[1] * (maps[1] / maps[0]).log()
    expected = difference.mean() if distance == "scores" else difference.sum(-1).mean()
    assert loss.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("distance", ["kl", "scores", "values"])
@pytest.mark.parametrize("heads", ["match", "mean"])
def test_gradients_reach_only_the_student_and_are_correct(distance: str, heads: str) -> None:
    teacher = outputs([block(7)])
    inputs = vars(block(0)).values()

    def loss(*parts: torch.Tensor) -> torch.Tensor:
        return loss_of(outputs([Attention(*parts)]), teacher, distance=distance, heads=heads)

    assert torch.autograd.gradcheck(loss, tuple(inputs))
    loss(*inputs).backward()
    assert all(part.grad is None for part in vars(teacher.attention[0][0]).values())


@pytest.mark.parametrize("distance", ["kl", "scores", "values"])
def test_the_loss_is_0_only_for_a_student_equal_to_its_teacher(distance: str) -> None:
    same = outputs([block(0)], [block(1)])
    assert loss_of(same, same, distance=distance).item() == pytest.approx(0, abs=1e-12)
    assert loss_of(outputs([block(2)], [block(3)]), same, distance=distance).item() > 0.01


@pytest.mark.parametrize(
    ("student", "teacher", "options", "message"),
    [
        (outputs(), outputs([block(0)]), {}, "the student has none"),
        (outputs([block(0)]), outputs(), {}, "the teacher has none .*source: crop"),
        (
            outputs([block(0)]),
            outputs([block(1)], [block(2)]),
            {},
            "student has 1 and the teacher 2: set pairs: uniform",
        ),
        (outputs([block(0)]), outputs([block(1, heads=2)]), {}, "student has 3 and the teacher 2: set heads: mean"),
        (
            outputs([block(0)]),
            outputs([block(1, frames=10)], frames=10),
            {},
            r"the student's stride over time is 2, the teacher's 1 \(model.stem_stride\)",
        ),
        (outputs([block(0)]), outputs([block(1, frames=20)]), {}, "student's are 5 x 5, the teacher's 20 x 20: both"),
        (outputs([block(0)]), outputs([block(1)]), {"distance": "mse"}, "kl"),
    ],
)
def test_maps_that_cannot_be_compared_are_errors(
    student: Outputs, teacher: Outputs, options: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        term(student, teacher, **options)


def test_half_precision_is_compared_in_single() -> None:
    ours, theirs = (Attention(*(part.detach().bfloat16() for part in vars(block(seed)).values())) for seed in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(outputs([ours]), outputs([theirs]))
    exact = [Attention(*(part.double() for part in vars(each).values())) for each in (ours, theirs)]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss_of(outputs([exact[0]]), outputs([exact[1]])).item(), rel=1e-5)


def test_networks_of_different_sizes_can_teach_each_other() -> None:
    small = {"depth": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    student = models.build("bc_cmt", small, 80)
    teacher = models.build("bc_cmt", {**small, "channels": [16, 16, 32, 32], "depth": [1, 1, 2, 1]}, 80).eval()
    feats = torch.randn(2, 40, 80)
    taught = outputs_of(student, None, feats, LABELS, inside=True)
    with torch.no_grad():
        teaching = outputs_of(teacher, None, feats, LABELS, inside=True)
    loss_of(taught, teaching).backward()
    grads = {name: parameter.grad for name, parameter in student.named_parameters()}
    moved = [name for name, grad in grads.items() if grad is not None and grad.any()]
    assert {"stages.3.0.attention.query.weight", "stem.conv1.weight"} <= set(moved)
    assert not [name for name in moved if "value" in name.split(".") and name.startswith("stages.3")]
