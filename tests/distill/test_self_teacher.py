"""SKDFE's self-teacher against float64 loops, and which parameters each of its losses trains."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from wespeaker_lite import distill, models
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.distill.label import softened_kl
from wespeaker_lite.distill.outputs import Outputs, outputs_of
from wespeaker_lite.distill.self_teacher import DISTANCES, Config, Enhancement, Term, refine
from wespeaker_lite.distill.term import Partners
from wespeaker_lite.models.margin import HeadConfig, build_head

FRAMES, MELS, CLASSES, EMBED_DIM = 26, 16, 5, 6
LABELS = torch.tensor([0, 3, 1])
NETWORKS = {
    "resnet": {"depth": 18, "width": 2},
    "ecapa_tdnn": {"channels": 8, "mfa_channels": 12, "se_bottleneck": 4, "attention_bottleneck": 4},
    "campplus": {"channels": 16, "growth": 4},
    "bc_cmt": {"channels": (4, 4, 8, 8), "depth": (1, 1, 1, 1), "stem_channels": 4, "bands": 1},
}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Student(nn.Module):
    """A network with its head, as a learner has it."""

    def __init__(self, name: str = "resnet", frames: int = FRAMES) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.network = models.build(name, {**NETWORKS[name], "embed_dim": EMBED_DIM}, MELS)
        self.head = build_head({"margin": 0.3}, EMBED_DIM, CLASSES)
        self.feats = noise(3, frames, MELS).float()

    def forward(self) -> Outputs:
        return outputs_of(self.network, self.head, self.feats, LABELS, inside=True)

    def term(self, **options: object) -> Term:
        partners = Partners(self.eval()(), None, HeadConfig(margin=0.3), CLASSES, self.feats.shape[1])
        self.train()
        (built,) = distill.build_terms([{"name": "self_teacher", **options}], partners).values()
        return built


# --- the structure, by loops -----------------------------------------------------------------------------------------


def looped(state: dict[str, Tensor], maps: Sequence[Tensor]) -> list[Tensor]:
    """The refinements of `maps` in training mode, from the formulas of the docstrings."""

    def pointwise(name: str, x: Tensor) -> Tensor:
        if f"{name}.0.weight" not in state:  # left out where channels are equal
            return x
        return norm(f"{name}.1", convolve(state[f"{name}.0.weight"], x)).clamp(min=0)

    def norm(name: str, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        for c in range(x.shape[1]):
            mean = x[:, c].sum() / x[:, c].numel()
            variance = ((x[:, c] - mean) ** 2).sum() / x[:, c].numel()
            out[:, c] = (x[:, c] - mean) / (variance + 1e-5) ** 0.5 * state[f"{name}.weight"][c] + state[
                f"{name}.bias"
            ][c]
        return out

    def refine(name: str, x: Tensor) -> Tensor:
        x = norm(f"{name}.2", convolve(state[f"{name}.1.weight"], sweep(state[f"{name}.0.weight"], x))).clamp(min=0)
        return norm(f"{name}.6", convolve(state[f"{name}.5.weight"], sweep(state[f"{name}.4.weight"], x)))

    def join(name: str, neighbour: Tensor, *own: Tensor) -> Tensor:
        scores = [math.exp(score) for score in state[f"{name}.scores"].tolist()]
        size = own[0].shape[2:]
        parts = (repeated(pointwise(f"{name}.match", pooled(neighbour, size)), size), *own)
        return refine(f"{name}.refine", sum(s / sum(scores) * p for s, p in zip(scores, parts, strict=True)))

    passed = {len(maps) - 1: pointwise(f"laterals.{len(maps) - 1}", maps[-1])}
    for i in range(len(maps) - 2, -1, -1):
        passed[i] = join(f"top_down.{i}", passed[i + 1], pointwise(f"laterals.{i}", maps[i]))
    refined = [passed[0]]
    for i in range(1, len(maps)):
        second = pointwise(f"second_laterals.{i - 1}", maps[i])
        refined.append(join(f"bottom_up.{i - 1}", refined[-1], second, passed[i]))
    return refined


def convolve(weight: Tensor, x: Tensor) -> Tensor:
    """A 1x1 convolution, output channel by output channel."""
    return torch.stack([(row[None] * x).sum(1) for row in weight], dim=1)


def sweep(weight: Tensor, x: Tensor) -> Tensor:
    """A depthwise convolution, tap by tap."""
    out = torch.zeros_like(x)
    (rows, columns), (height, width) = weight.shape[2:], x.shape[2:]
    for h in range(height):
        for w in range(width):
            for i in range(rows):
                for j in range(columns):
                    y, z = h + i - rows // 2, w + j - columns // 2
                    if 0 <= y < height and 0 <= z < width:
                        out[:, :, h, w] += weight[:, 0, i, j] * x[:, :, y, z]
    return out


def pooled(x: Tensor, size: Sequence[int]) -> Tensor:
    """On an axis that gets smaller, cell n is the largest of cells 2n - 1, 2n and 2n + 1, if they exist."""
    sources = [
        [[k for k in (2 * n - 1, 2 * n, 2 * n + 1) if 0 <= k < old] for n in range(new)]
        if new < old
        else [[n] for n in range(old)]
        for old, new in zip(x.shape[2:], size, strict=True)
    ]
    rows = [[torch.stack([x[:, :, i, j] for i in h for j in w]).amax(0) for w in sources[1]] for h in sources[0]]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def repeated(x: Tensor, size: Sequence[int]) -> Tensor:
    """On an axis that gets larger, cell n is that of n // 2."""
    rows, columns = (
        [n // 2 if new > old else n for n in range(new)] for old, new in zip(x.shape[2:], size, strict=True)
    )
    return x[:, :, rows][:, :, :, columns]


@pytest.mark.parametrize("match", ["always", "unequal"])
@pytest.mark.parametrize(
    ("channels", "kernel", "sizes"),
    [
        ((3, 4, 6), (3, 3), [(7, 9), (4, 5), (2, 3)]),
        ((2, 4, 4), (3, 3), [(10, 5), (5, 5), (3, 5)]),
        ((3, 3, 3), (1, 3), [(1, 7)] * 3),
    ],
    ids=["odd-sizes", "frequency-only", "1-d"],
)
@pytest.mark.parametrize("width", [1.0, 1.5])
def test_the_forward_pass_equals_the_formulas(
    channels: tuple[int, ...], kernel: tuple[int, int], sizes: list[tuple[int, int]], width: float, match: str
) -> None:
    enhancement = Enhancement(channels, kernel, Config(width=width, match=match)).double()
    for number, parameter in enumerate(enhancement.parameters()):
        parameter.data = noise(*parameter.shape, seed=number)
    maps = [noise(2, count, *size, seed=-count).requires_grad_() for count, size in zip(channels, sizes, strict=True)]
    refined = enhancement(maps)
    expected = looped(enhancement.state_dict(), maps)
    assert [r.shape[1:] for r in refined] == [(round(width * c), *s) for c, s in zip(channels, sizes, strict=True)]
    for ours, theirs in zip(refined, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    gradients = [torch.autograd.grad(sum(r.square().sum() for r in each), maps) for each in (refined, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("channels", "kernel", "width", "millions"),
    [
        ((32, 64, 128, 256), (3, 3), 1.0, 0.49),
        ((32, 64, 128, 256), (3, 3), 2.0, 1.59),
        ((256,) * 3, (1, 3), 1.0, 1.13),
        ((512,) * 3, (1, 3), 1.0, 4.49),
        ((1024,) * 3, (1, 3), 1.0, 17.9),
    ],
    ids=["resnet", "resnet-w2", "ecapa-c256", "ecapa-c512", "ecapa-c1024"],
)
def test_sizes_without_pooling_embedding_and_head(
    channels: tuple[int, ...], kernel: tuple[int, int], width: float, millions: float
) -> None:
    with torch.device("meta"):
        enhancement = Enhancement(channels, kernel, Config(width=width))
    count = sum(parameter.numel() for parameter in enhancement.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005 if millions < 10 else 0.05)


def test_equal_channels_can_do_without_a_match() -> None:
    counts = [
        sum(p.numel() for p in Enhancement((8,) * 3, (1, 3), Config(match=m)).parameters())
        for m in ("always", "unequal")
    ]
    assert counts[0] - counts[1] == 4 * (8 * 8 + 2 * 8)


def test_depth_counts_the_depthwise_convolutions() -> None:
    for depth in (1, 2, 3):
        enhancement = Enhancement((4, 4), (1, 3), Config(depth=depth))
        convolutions = [m for m in enhancement.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
        assert len(convolutions) == 2 * depth


# --- losses ----------------------------------------------------------------------------------------------------------


def test_distances_equal_the_formulas() -> None:
    ours, theirs = noise(2, 3, 4, 5, seed=1), noise(2, 3, 4, 5, seed=2)
    attention = cosine = squares = 0.0
    for a, b in zip(ours, theirs, strict=True):
        energies = [(m**2).mean(0).flatten().tolist() for m in (a, b)]
        lengths = [math.sqrt(sum(e * e for e in energy)) for energy in energies]
        attention += sum((e / lengths[0] - f / lengths[1]) ** 2 for e, f in zip(*energies, strict=True))
        for x, y in zip(a.flatten(1).T, b.flatten(1).T, strict=True):
            cosine += 1 - (x @ y / x.norm() / y.norm()).item()
            squares += ((x - y) ** 2).sum().item()
    expected = {"attention": attention / 2, "cosine": cosine / (2 * 20), "mse": squares / (2 * 20 * 3)}
    assert {name: distance(ours, theirs).item() for name, distance in DISTANCES.items()} == pytest.approx(expected)


@pytest.mark.parametrize("distance", ["attention", "cosine", "mse"])
def test_the_feature_level_sums_the_distances_of_all_maps(distance: str) -> None:
    student = Student()
    term, outputs = student.term(distance=distance, width=1.5), student()
    if distance == "attention":  # needs no adaptor, so the maps of any width compare
        assert not list(term.adaptors.parameters())
        adapted = outputs.maps
    else:
        adapted = [torch.einsum("oc,bcft->boft", a.weight[:, :, 0, 0], m) + a.bias[:, None, None]
                   for a, m in zip(term.adaptors, outputs.maps, strict=True)]  # fmt: skip
    refined = term.enhancement(outputs.maps)
    expected = sum(DISTANCES[distance](a.double(), r.double()) for a, r in zip(adapted, refined, strict=True))
    loss = term(outputs, None, LABELS)["self_feature"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("logits", ["cosine", "margin"])
def test_the_label_level_is_the_kl_of_the_self_teachers_distribution(logits: str) -> None:
    student = Student()
    term, outputs = student.term(logits=logits, temperature=2.5), student()
    pooled = term.pooling(term.enhancement(outputs.maps)[-1])
    normed = (pooled - pooled.mean(0)) / (pooled.var(0, unbiased=False) + 1e-5).sqrt()
    embedding = term.embedding(normed)
    teaching = 32.0 * term.head.cosine(embedding) if logits == "cosine" else term.head(embedding, LABELS)
    taught = outputs.cosine_logits if logits == "cosine" else outputs.margin_logits
    p, q = (torch.softmax(x.double() / 2.5, 1) for x in (teaching, taught))
    expected = 2.5**2 * (p * (p / q).log()).sum(1).mean()
    assert term.head.margin == 0.3  # that of the student's head
    losses = term(outputs, None, LABELS)
    assert losses["self_label"].item() == pytest.approx(expected.item(), rel=1e-4)
    classification = -torch.log_softmax(term.head(embedding, LABELS).double(), 1)[range(3), LABELS].mean()
    assert losses["self_class"].item() == pytest.approx(classification.item(), rel=1e-5)


@pytest.mark.parametrize("crops", ["all", "right", "confidence"])
def test_the_label_level_uses_the_selected_crops(crops: str) -> None:
    student = Student()
    term, outputs = student.term(crops=crops, temperature=2.5), student()
    # so that the first crop is classified right, the second wrong
    _, cosines, _ = refine(term, outputs.maps, LABELS)
    best = cosines.argmax(1)
    labels = torch.stack([best[0], (best[1] + 1) % CLASSES, best[2]])
    losses = term(outputs, None, labels)
    assert losses["self_accuracy"].item() == pytest.approx(2 / 3)
    p, q = (torch.softmax(x.double() / 2.5, 1) for x in (cosines, outputs.cosine_logits))
    pairs = zip(p.tolist(), q.tolist(), strict=True)
    divergences = [sum(a * math.log(a / b) for a, b in zip(*rows, strict=True)) for rows in pairs]
    rows = zip(cosines.double().tolist(), labels.tolist(), strict=True)
    sure = [math.exp(row[label]) / sum(map(math.exp, row)) for row, label in rows]
    weights = {"all": [1, 1, 1], "right": [1, 0, 1], "confidence": sure}[crops]
    expected = 2.5**2 * sum(w * d for w, d in zip(weights, divergences, strict=True)) / 3
    assert losses["self_label"].item() == pytest.approx(expected, rel=1e-4)


def test_the_moving_average_follows_and_teaches_without_gradient() -> None:
    student = Student()
    term = student.term(ema=0.75)
    own, average = term.embedding.weight, term.average["embedding"].weight
    assert torch.equal(own, average)
    before = average.clone()
    own.data += 1.0
    losses = term(student(), None, LABELS)
    torch.testing.assert_close(average, before + 0.25)
    _, cosines, _ = refine(term.average, student().maps, LABELS)
    torch.testing.assert_close(
        losses["self_label"], softened_kl(student().cosine_logits, cosines, 4.0), rtol=1e-5, atol=0
    )
    losses["self_label"].backward()
    assert average.grad is None
    assert own.grad is None  # who learns does not teach
    term.eval()
    term(student(), None, LABELS)
    torch.testing.assert_close(average, before + 0.25)


def test_kd_waits_for_its_first_epoch() -> None:
    term = Student().term(start_epoch=2.0, ramp_epochs=2.0, alpha=3.0, beta=1.0)
    weights = [term.weights(epoch) for epoch in (1.9, 3.0, 4.0)]
    assert [(w["self_class"], w["self_label"], w["self_feature"]) for w in weights] == [
        (1, 0, 0), (1, 1.5, 0.5), (1, 3, 1)
    ]  # fmt: skip


def test_a_level_without_weight_has_no_loss() -> None:
    student = Student()
    made = {
        (alpha, beta): set(student.term(alpha=alpha, beta=beta)(student(), None, LABELS))
        for alpha in (0.0, 2.0)
        for beta in (0.0, 1.0)
    }
    both = {"self_class", "self_label", "self_feature", "self_accuracy"}
    assert made == {
        (0.0, 0.0): {"self_class", "self_accuracy"},
        (2.0, 0.0): both - {"self_feature"},
        (0.0, 1.0): both - {"self_label"},
        (2.0, 1.0): both,
    }
    assert not list(student.term(beta=0.0, distance="mse").adaptors.parameters())


def test_both_levels_grow_over_the_ramp() -> None:
    term = Student().term(alpha=3.0, beta=0.5, ramp_epochs=2.0)
    assert term.weights(0.5) == {"self_class": 1.0, "self_label": 0.75, "self_feature": 0.125}
    assert term.weights(9) == {"self_class": 1.0, "self_label": 3.0, "self_feature": 0.5}


# --- which loss trains which module ----------------------------------------------------------------------------------


def trained_by(loss: str, distance: str = "attention") -> set[str]:
    """The modules of student and self-teacher that get a gradient of a loss, for all or none of their parameters."""
    student = Student()
    term = student.term(distance=distance, pooling="attentive")
    term(student(), None, LABELS)[loss].backward()
    moved: dict[str, set[bool]] = {}
    for name, parameter in [*student.named_parameters(), *(("term." + n, p) for n, p in term.named_parameters())]:
        part = name.split(".")[1] if name.startswith("network") else ".".join(name.split(".")[:2])
        moved.setdefault(part, set()).add(parameter.grad is not None and bool(parameter.grad.abs().sum() > 0))
    assert all(len(values) == 1 for values in moved.values()), moved
    return {part for part, values in moved.items() if values == {True}}


BACKBONE = {"stem", "stages"}


def test_the_self_teachers_classification_reaches_the_student_through_its_maps() -> None:
    own = {f"term.{part}" for part in ("enhancement", "pooling", "norm", "embedding", "head")}
    assert trained_by("self_class") == BACKBONE | own


def test_the_label_level_trains_only_the_student() -> None:
    assert trained_by("self_label") == BACKBONE | {"embedding", "head.weight"}


def test_the_feature_level_trains_only_the_student_and_the_adaptors() -> None:
    assert trained_by("self_feature") == BACKBONE
    assert trained_by("self_feature", "mse") == BACKBONE | {"term.adaptors"}
    assert trained_by("self_feature", "cosine") == BACKBONE | {"term.adaptors"}


# --- any network, any precision, bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_have_a_self_teacher(name: str) -> None:
    student = Student(name, frames=27)
    term = student.term()
    outputs = student()
    sum(term(outputs, None, LABELS).values()).backward()
    kernels = {m.kernel_size for m in term.enhancement.modules() if isinstance(m, nn.Conv2d) and m.groups > 1}
    assert kernels == {(1, 3) if outputs.maps[0].dim() == 3 else (3, 3)}
    assert all(parameter.grad.isfinite().all() for parameter in term.parameters())
    assert sum(parameter.grad.abs().sum() for parameter in term.enhancement.parameters()) > 0


def test_distances_are_computed_in_full_precision() -> None:
    student = Student()
    term = student.term()
    short = [noise(3, 4, 9, 9, seed=n).bfloat16() for n in range(4)]
    refined = [noise(3, 4, 9, 9, seed=n + 4).bfloat16() for n in range(4)]
    with torch.autocast("cpu", torch.bfloat16):
        loss = term._feature_distance(short, refined)
        trained = term(student(), None, LABELS)
    exact = sum(DISTANCES["attention"](a.double(), b.double()) for a, b in zip(short, refined, strict=True))
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in trained.values())


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], "two maps or more .*; it has none"),
        ([(4, 20, 30)], "two maps or more .*; it has 20x30"),
        ([(4, 20, 30), (8, 10, 14)], "whole strides; they are 20x30, 10x14"),
        ([(4, 20, 30), (8, 10, 15), (8, 20, 15)], "whole strides; they are 20x30, 10x15, 20x15"),
        ([(4, 30), (4, 14)], "whole strides; they are 1x30, 1x14"),
    ],
)
def test_maps_that_do_not_fit_are_refused(shapes: list[tuple[int, ...]], message: str) -> None:
    outputs = Outputs(torch.zeros(1, EMBED_DIM), maps=[torch.zeros(1, *shape) for shape in shapes])
    with pytest.raises(InputError, match=message):
        Term(Config(), Partners(outputs, None, HeadConfig(), CLASSES, 30))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0.0}, "width: 0.0 does not lie in"),
        ({"depth": 0}, "depth: 0 does not lie in"),
        ({"beta": -1.0}, "beta: -1.0 does not lie in"),
        ({"temperature": 0.0}, "temperature: 0.0 does not lie in"),
        ({"ema": 1.0}, "ema: 1.0 does not lie in"),
        ({"learning_rate": 0.0}, "learning_rate: 0.0 does not lie in"),
        ({"distance": "l2"}, "'l2' is none of"),
        ({"aplha": 1.0}, "did you mean 'alpha'"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Student().term(**options)
