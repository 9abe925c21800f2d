"""Knowledge distillation: KD terms, one file each and found by name, and teachers."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from wespeaker_lite.core import plugins
from wespeaker_lite.distill.several import Several
from wespeaker_lite.distill.term import Partners
from wespeaker_lite.recipe.distill_config import DistillConfig


def build_terms(
    sections: Sequence[Mapping[str, Any]], partners: Partners | Sequence[Partners], config: DistillConfig | None = None
) -> nn.ModuleDict:
    """Build the KD terms of a config, keyed by name, in its order.

    partners: one, or a list with one for each teacher. `config` has the options to combine several teachers.

    Raises:
        InputError: for an unknown term or option, with the nearest match.
    """
    terms = nn.ModuleDict()
    for number, section in enumerate(sections):
        where = f"distill.terms[{number}]"
        module, options = plugins.find(__name__, section, where)
        if isinstance(partners, Partners) or not module.Term.needs_teacher:
            first = partners if isinstance(partners, Partners) else partners[0]
            terms[section["name"]] = module.Term(options, first)
            continue
        each = [module.Term(options, one) for one in partners]
        terms[section["name"]] = Several(each, config.combine, config.teacher_weights)
    return terms
