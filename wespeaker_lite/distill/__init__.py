"""Knowledge distillation: one file per term, found by its name, and the teachers that feed them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from wespeaker_lite import plugins
from wespeaker_lite.distill.term import Partners


@dataclass(frozen=True)
class DistillConfig:
    """From whom a student learns, and what.

    teacher: a conf file that stage 3 trains (or fetches); empty for none. source: `crop`, where the teacher sees the
    student's own crop, or `utterance`, where its embeddings of whole utterances are made once and read from an ark.
    embeddings: such an ark's .scp made elsewhere, in the place of a teacher. terms: `{name: label, weight: 1.0, ...}`
    each; those that need no teacher do without.
    """

    teacher: str = ""
    source: Literal["crop", "utterance"] = "crop"
    embeddings: str = ""
    terms: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.teacher and self.embeddings:
            raise ValueError("either a teacher or embeddings, not both")


def build_terms(sections: Sequence[Mapping[str, Any]], partners: Partners) -> nn.ModuleDict:
    """Build the KD terms of a config, keyed by name, in its order.

    Raises:
        InputError: for an unknown term or option, with the nearest match.
    """
    terms = nn.ModuleDict()
    for number, section in enumerate(sections):
        where = f"distill.terms[{number}]"
        module, config = plugins.find(__name__, section, where)
        terms[section["name"]] = module.Term(config, partners)
    return terms
