"""Several teachers: a term for each, combined losses, and an error for a mismatch with any of them."""

import pytest
import torch

from tests.distill.test_terms import LABELS, outputs, partners
from wespeaker_lite import distill
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.distill.several import Several
from wespeaker_lite.distill.term import Partners
from wespeaker_lite.models.margin import HeadConfig
from wespeaker_lite.recipe.distill_config import DistillConfig

TWO = ("conf/a.yaml", "conf/b.yaml")


def built(section: dict, **config: object) -> Several:
    each = [partners(6, 6), partners(6, 4)]
    (term,) = distill.build_terms([section], each, DistillConfig(teachers=TWO, terms=(section,), **config)).values()
    return term


@pytest.mark.parametrize(
    ("config", "combined"),
    [
        ({}, lambda a, b: (a + b) / 2),
        ({"teacher_weights": (3.0, 1.0)}, lambda a, b: 0.75 * a + 0.25 * b),
        ({"combine": "best"}, min),
    ],
)
@pytest.mark.parametrize("name", ["embedding", "label"])
def test_losses_of_each_teacher_are_combined(name: str, config: dict, combined: object) -> None:
    term = built({"name": name, "weight": 3.0}, **config)
    student, teachers = outputs(1), [outputs(2, width=6), outputs(3, width=4)]
    alone = [part(student, teacher, LABELS)[name].item() for part, teacher in zip(term.each, teachers, strict=True)]
    assert alone[0] != pytest.approx(alone[1])
    assert term(student, teachers, LABELS)[name].item() == pytest.approx(combined(*alone), rel=1e-5)
    assert term.weights(1.0) == {name: 3.0}
    if name == "embedding":  # each has a projection of its own, of which only the one to the unlike width is needed
        assert [sum(p.numel() for p in part.parameters()) for part in term.each] == [0, 24]


def test_a_term_without_teacher_occurs_once_and_a_mismatch_is_an_error() -> None:
    headless = Partners(outputs(1), Outputs(torch.zeros(1, 6)), HeadConfig(), 7, 100)
    with pytest.raises(InputError, match="needs a teacher with a head"):
        distill.build_terms([{"name": "label"}], [partners(), headless], DistillConfig(teachers=TWO))
    assert "teacher" not in "".join(built({"name": "embedding"}).state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": "a.yaml", "teachers": TWO}, "only one of"),
        ({"teachers": ("a b.yaml",)}, "without spaces"),
        ({"teachers": ("a.yaml", "a.yaml")}, "appears twice"),
        ({"teachers": TWO, "teacher_weights": (1.0,)}, "as many teacher_weights"),
        ({"teachers": TWO, "teacher_weights": (1.0, 2.0), "combine": "best"}, "uses no teacher_weights"),
        ({"teacher": "a.yaml", "classifier": "centroids"}, "source: utterance"),
    ],
)
def test_bad_sections(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillConfig(**options)
