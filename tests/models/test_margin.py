import math

import pytest
import torch

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.models.margin import build_head

CLASSES, DIM = 7, 5


def _batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(11, DIM, generator=generator), torch.randint(CLASSES, (11,), generator=generator)


def _head(**options):
    torch.manual_seed(3)
    return build_head({"scale": 16.0, **options}, DIM, CLASSES)


def _naive_cosine(head, embedding: torch.Tensor, label: int) -> float:
    """Highest cosine to the class's sub-centres, in float64."""
    candidates = []
    for center in head.weight.detach().double()[:, label]:
        e = embedding.double()
        candidates.append(float(e @ center) / math.sqrt(float(e @ e) * float(center @ center)))
    return max(candidates)


def _naive_target(name: str, cosine: float, margin: float, easy: bool) -> float:
    if name == "am":
        return cosine - margin
    if name == "softmax":
        return cosine
    if easy:
        return math.cos(math.acos(cosine) + margin) if cosine > 0 else cosine
    angle = math.acos(cosine)
    return math.cos(angle + margin) if angle + margin < math.pi else cosine - 1 - math.cos(math.pi - margin)


@pytest.mark.parametrize(
    ("name", "subcenters", "easy"),
    [("aam", 1, False), ("aam", 3, False), ("aam", 1, True), ("am", 1, False), ("am", 2, False)],
)
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.2])
def test_logits_equal_the_formula(name, subcenters, easy, margin):
    head = _head(name=name, subcenters=subcenters, easy_margin=easy, margin=margin)
    embeddings, labels = _batch()
    expected = torch.empty(len(labels), CLASSES, dtype=torch.float64)
    for row, label in enumerate(labels.tolist()):
        for column in range(CLASSES):
            cosine = _naive_cosine(head, embeddings[row], column)
            expected[row, column] = 16 * (_naive_target(name, cosine, margin, easy) if column == label else cosine)
    torch.testing.assert_close(head(embeddings, labels).double(), expected, rtol=1e-4, atol=1e-4)


def test_the_margin_never_raises_a_target_and_keeps_their_order():
    head = _head(name="aam", margin=0.3)
    cosines = torch.linspace(-1, 1, 2001)[:, None].repeat(1, CLASSES)
    targets = head.penalise(cosines, torch.zeros(2001, dtype=torch.int64))[:, 0] / 16
    assert (targets <= cosines[:, 0] + 1e-6).all()
    assert (targets.diff() > 0).all()


def test_cosine_and_logits_share_one_product():
    head = _head(name="aam", subcenters=2)
    embeddings, labels = _batch()
    cosines, logits = head.cosines_and_logits(embeddings, labels)
    torch.testing.assert_close(cosines, head.cosine(embeddings), rtol=0, atol=0)
    torch.testing.assert_close(logits, head(embeddings, labels), rtol=0, atol=0)
    torch.testing.assert_close(logits, head.penalise(cosines, labels), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["am", "aam"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_where_the_angle_is_0_or_pi(name, sign):
    head = _head(name=name)
    labels = torch.arange(CLASSES)
    embeddings = (sign * head.weight.detach()[0]).requires_grad_()
    torch.nn.functional.cross_entropy(head(embeddings, labels), labels).backward()
    assert embeddings.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()
    assert embeddings.grad.abs().max() < 100


def test_gradients_of_aam_equal_finite_differences():
    head = _head(name="aam", subcenters=2).double()
    embeddings, labels = _batch()
    assert torch.autograd.gradcheck(lambda e: head(e, labels), embeddings.double().requires_grad_())


def test_angles_are_float32_under_autocast():
    head = _head(name="aam", subcenters=2)
    embeddings, labels = _batch()
    plain = head(embeddings.bfloat16().float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = head(embeddings.bfloat16(), labels)
        cosines = head.cosine(embeddings.bfloat16())
    assert mixed.dtype == cosines.dtype == torch.float32
    torch.testing.assert_close(mixed, plain)


def test_softmax_is_a_plain_linear_layer_whose_cosines_are_normalised():
    head = _head(name="softmax", margin=0.2)
    torch.nn.init.normal_(head.bias)
    embeddings, labels = _batch()
    head.set_margin(0.5)
    assert head.margin == 0
    expected = embeddings @ head.weight[0].T + head.bias
    torch.testing.assert_close(head(embeddings, labels), expected)
    cosines = head.cosine(embeddings).detach()
    assert math.isclose(float(cosines[2, 4]), _naive_cosine(head, embeddings[2], 4), rel_tol=1e-5)
    torch.testing.assert_close(head.cosines_and_logits(embeddings, labels), (head.cosine(embeddings), expected))


def test_set_margin_changes_the_next_logits_and_refuses_invalid_values():
    head = _head(name="aam", margin=0.0)
    embeddings, labels = _batch()
    before = head(embeddings, labels)
    head.set_margin(0.4)
    assert head.margin == 0.4
    assert not torch.equal(before, head(embeddings, labels))
    for margin in (-0.1, math.pi / 2, math.nan):
        with pytest.raises(ValueError, match="margin"):
            head.set_margin(margin)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "aamm"}, "aam"),
        ({"subcentres": 2}, "did you mean 'subcenters'"),
        ({"subcenters": 0}, "subcenters"),
        ({"name": "softmax", "subcenters": 2}, "softmax"),
        ({"name": "am", "easy_margin": True}, "easy_margin"),
        ({"scale": 0.0}, "scale"),
        ({"margin": 2.0}, "margin"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        build_head(options, DIM, CLASSES)


def test_no_classes_are_refused():
    with pytest.raises(InputError, match="0 classes"):
        build_head({}, DIM, 0)


def test_parameter_names_and_shapes_match_existing_files():
    assert {k: tuple(v.shape) for k, v in _head(name="aam", subcenters=3).state_dict().items()} == {
        "weight": (3, CLASSES, DIM)
    }
    assert list(_head(name="softmax").state_dict()) == ["weight", "bias"]
