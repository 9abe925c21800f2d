"""KD terms against float64 formulas, and where their gradients go."""

import pytest
import torch
from torch.nn import functional as F

from wespeaker_lite import distill
from wespeaker_lite.config import from_mapping
from wespeaker_lite.distill import DistillConfig
from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.errors import InputError


def outputs(seed: int, width: int = 6) -> Outputs:
    draw = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(5, size, generator=draw).requires_grad_() for size in (width, 7, 7)]
    return Outputs(*tensors)


def term(student_dim: int = 6, teacher_dim: int = 6, **section: object) -> torch.nn.Module:
    (built,) = distill.build_terms([section], student_dim, teacher_dim).values()
    return built


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
    loss = term(name="label", temperature=temperature, logits=logits)(student, teacher)
    assert loss.item() == pytest.approx(temperature**2 * expected / 5, rel=1e-5)


def test_cosine_and_mse_of_embeddings() -> None:
    student, teacher = outputs(1), outputs(2)
    ours, theirs = student.embedding.double(), teacher.embedding.double()
    cosines = [(a @ b / a.norm() / b.norm()).item() for a, b in zip(ours, theirs, strict=True)]
    assert term(name="embedding")(student, teacher).item() == pytest.approx(1 - sum(cosines) / 5, rel=1e-5)
    squares = [((a - b) ** 2).mean().item() for a, b in zip(ours, theirs, strict=True)]
    mse = term(name="embedding", distance="mse")(student, teacher)
    assert mse.item() == pytest.approx(sum(squares) / 5, rel=1e-5)


@pytest.mark.parametrize("section", [{"name": "label"}, {"name": "label", "logits": "margin"}, {"name": "embedding"}])
def test_no_gradient_reaches_the_teacher(section: dict) -> None:
    student, teacher = outputs(1), outputs(2)
    term(**section)(student, teacher).backward()
    grads = [tensor.grad for tensor in vars(student).values()]
    assert any(grad is not None and grad.abs().sum() > 0 for grad in grads)
    assert all(tensor.grad is None for tensor in vars(teacher).values())


def test_the_same_outputs_cost_nothing() -> None:
    same = outputs(3)
    assert term(name="label")(same, same).item() == pytest.approx(0, abs=1e-5)
    assert term(name="embedding")(same, same).item() == pytest.approx(0, abs=1e-6)


def test_a_projection_joins_unlike_widths_and_is_trained() -> None:
    student, teacher = outputs(1, width=4), outputs(2, width=6)
    joined = term(4, 6, name="embedding")
    projected = student.embedding @ joined.projection.weight.T
    expected = (1 - F.cosine_similarity(projected, teacher.embedding)).mean()
    assert joined(student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)
    joined(student, teacher).backward()
    assert joined.projection.weight.grad.abs().sum() > 0
    assert not list(term(6, 6, name="embedding").parameters())
    assert list(term(6, 6, name="embedding", projection="always").parameters())


def test_label_needs_a_head() -> None:
    with pytest.raises(InputError, match="needs a teacher with a head"):
        term(name="label")(outputs(1), Outputs(torch.randn(5, 6)))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([{"name": "lable"}], "did you mean 'label'"),
        ([{"name": "label", "temprature": 2.0}], "did you mean 'temperature'"),
        ([{"name": "label", "temperature": 0.0}], "temperature > 0"),
        ([{"name": "label"}, {"name": "label"}], "stands twice"),
        ([{"weight": 1.0}], "'name' is missing"),
    ],
)
def test_bad_terms(sections: list[dict], message: str) -> None:
    with pytest.raises(InputError, match=message):
        distill.build_terms(sections, 6, 6)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"teacher": "a.yaml"}, "go together"),
        ({"terms": [{"name": "label"}]}, "go together"),
        ({"teacher": "a.yaml", "embeddings": "b.scp", "terms": [{"name": "label"}]}, "not both"),
    ],
)
def test_bad_sections(section: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_mapping(DistillConfig, section, "distill")
