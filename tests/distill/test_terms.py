"""KD terms against float64 formulas, and where their gradients go."""

import pytest
import torch
from torch.nn import functional as F

from wespeaker_lite import distill
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.distill.term import Partners, Term, ramp
from wespeaker_lite.models.margin import HeadConfig
from wespeaker_lite.recipe.experiment import from_given

FIELDS = ("embedding", "cosine_logits", "margin_logits")
LABELS = torch.arange(5)


def outputs(seed: int, width: int = 6) -> Outputs:
    draw = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(5, size, generator=draw).requires_grad_() for size in (width, 7, 7)]
    return Outputs(*tensors)


def partners(student_dim: int = 6, teacher_dim: int = 6) -> Partners:
    return Partners(outputs(1, student_dim), outputs(2, teacher_dim), HeadConfig(), 7, 100)


def term(student_dim: int = 6, teacher_dim: int = 6, **section: object) -> Term:
    (built,) = distill.build_terms([section], partners(student_dim, teacher_dim)).values()
    return built


def loss_of(built: Term, student: Outputs, teacher: Outputs) -> torch.Tensor:
    (loss,) = built(student, teacher, LABELS).values()
    return loss


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("logits", ["cosine", "margin"])
def test_label_is_the_kl_of_softened_distributions(temperature: float, logits: str) -> None:
    student, teacher = outputs(1), outputs(2)
    expected = 0.0
    chosen = f"{logits}_logits"
    for ours, theirs in zip(getattr(student, chosen).tolist(), getattr(teacher, chosen).tolist(), strict=True):
        q, p = (
            torch.softmax(torch.tensor(row, dtype=torch.float64) / temperature, 0).tolist() for row in (ours, theirs)
        )
        expected += sum(
            b * torch.log(torch.tensor(b / a, dtype=torch.float64)).item() for a, b in zip(q, p, strict=True)
        )
    loss = loss_of(term(name="label", temperature=temperature, logits=logits), student, teacher)
    assert loss.item() == pytest.approx(temperature**2 * expected / 5, rel=1e-5)


def test_cosine_and_mse_of_embeddings() -> None:
    student, teacher = outputs(1), outputs(2)
    ours, theirs = student.embedding.double(), teacher.embedding.double()
    cosines = [(a @ b / a.norm() / b.norm()).item() for a, b in zip(ours, theirs, strict=True)]
    assert loss_of(term(name="embedding"), student, teacher).item() == pytest.approx(1 - sum(cosines) / 5, rel=1e-5)
    squares = [((a - b) ** 2).mean().item() for a, b in zip(ours, theirs, strict=True)]
    mse = loss_of(term(name="embedding", distance="mse"), student, teacher)
    assert mse.item() == pytest.approx(sum(squares) / 5, rel=1e-5)


@pytest.mark.parametrize(
    "section",
    [
        {"name": "label"},
        {"name": "label", "logits": "margin"},
        {"name": "decoupled"},
        {"name": "embedding"},
        {"name": "relational"},
        {"name": "similarity"},
    ],
)
def test_no_gradient_reaches_the_teacher(section: dict) -> None:
    student, teacher = outputs(1), outputs(2)
    loss_of(term(**section), student, teacher).backward()
    grads = [getattr(student, name).grad for name in FIELDS]
    assert any(grad is not None and grad.abs().sum() > 0 for grad in grads)
    assert all(getattr(teacher, name).grad is None for name in FIELDS)


@pytest.mark.parametrize("name", ["label", "decoupled", "embedding", "relational", "similarity"])
def test_equal_outputs_give_loss_0(name: str) -> None:
    same = outputs(3)
    assert loss_of(term(name=name), same, same).item() == pytest.approx(0, abs=2e-5)


def test_a_projection_connects_different_widths_and_is_trained() -> None:
    student, teacher = outputs(1, width=4), outputs(2, width=6)
    joined = term(4, 6, name="embedding")
    projected = student.embedding @ joined.projection.weight.T
    expected = (1 - F.cosine_similarity(projected, teacher.embedding)).mean()
    assert loss_of(joined, student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)
    loss_of(joined, student, teacher).backward()
    assert joined.projection.weight.grad.abs().sum() > 0
    assert not list(term(6, 6, name="embedding").parameters())
    assert list(term(6, 6, name="embedding", projection="always").parameters())


def test_a_deeper_projector_against_its_formula() -> None:
    student, teacher = outputs(1, width=4), outputs(2, width=6)
    built = term(4, 6, name="embedding", depth=2)
    first, norm, _, second = built.projection
    hidden = student.embedding.double() @ first.weight.double().T
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + norm.eps).sqrt()
    projected = hidden.clamp(min=0) @ second.weight.double().T
    expected = (1 - F.cosine_similarity(projected, teacher.embedding.double())).mean()
    assert loss_of(built, student, teacher).item() == pytest.approx(expected.item(), rel=1e-4)
    assert list(term(6, 6, name="embedding", depth=2).parameters())  # also where widths are equal


@pytest.mark.parametrize("name", ["label", "decoupled"])
def test_label_terms_need_a_head(name: str) -> None:
    headless = Partners(outputs(1), Outputs(outputs(2).embedding), HeadConfig(), 7, 100)
    with pytest.raises(InputError, match=f"the {name} term needs a teacher with a head"):
        distill.build_terms([{"name": name}], headless)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([{"name": "lable"}], "did you mean 'label'"),
        ([{"name": "label", "temprature": 2.0}], "did you mean 'temperature'"),
        ([{"name": "label", "temperature": 0.0}], "temperature: 0.0 does not lie in"),
        ([{"name": "embedding", "weight": -1.0}], "weight: -1.0 does not lie in"),
        ([{"name": "attention", "ramp_epochs": -1.0}], "ramp_epochs: -1.0 does not lie in"),
        ([{"name": "self_teacher", "ramp_epochs": -1.0}], "ramp_epochs: -1.0 does not lie in"),
        ([{"weight": 1.0}], "'name' is missing"),
        ([{"name": "decoupled", "nontarget": -1.0}], "nontarget: -1.0 does not lie in"),
        ([{"name": "relational", "distances": 0.0, "angles": 0.0}], "not both 0"),
        ([{"name": "similarity", "temperature": 0.0}], "temperature: 0.0 does not lie in"),
        ([{"name": "embedding", "depth": 0}], "depth: 0 does not lie in"),
    ],
)
def test_bad_terms(sections: list[dict], message: str) -> None:
    with pytest.raises(InputError, match=message):
        distill.build_terms(sections, partners())


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ({"distill": {"terms": [{"name": "self_teacher"}, {"name": "self_teacher"}]}}, r"terms\[1\]: .* appears twice"),
        ({"distill": {"terms": [{"name": "self_teacher"}]}, "head": {"name": "softmax"}}, "set logits: margin"),
        ({"distill": {"terms": [{"name": "self_teacher"}]}, "pretrained": "campplus"}, "would do nothing"),
    ],
)
def test_options_without_effect_or_with_a_wrong_effect_are_refused(experiment: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_given({"model": {"name": "ecapa_tdnn"}, **experiment}, "made.yaml")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"teacher": "a.yaml"}, "go together"),
        ({"terms": [{"name": "label"}]}, "go together"),
        ({"teacher": "a.yaml", "embeddings": "b.scp", "terms": [{"name": "label"}]}, "only one of"),
    ],
)
def test_bad_sections(section: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_given({"model": {"name": "ecapa_tdnn"}, "distill": section}, "made.yaml")


def test_weights_grow_over_the_ramp() -> None:
    assert [ramp(epoch, 4) for epoch in (0, 1, 4, 5)] == [0, 0.25, 1, 1]
    assert ramp(0, 0) == 1
    assert term(name="label", weight=3.0, ramp_epochs=2.0).weights(0.5) == {"label": 0.75}
