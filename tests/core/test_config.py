"""Tests of wespeaker_lite.core.config: fields that were added after models had been trained."""

from dataclasses import dataclass

from wespeaker_lite.core.config import added_later, from_mapping, to_mapping


@dataclass(frozen=True)
class Section:
    old: int = 1
    new: bool = added_later(False)


def test_a_field_added_later_is_left_out_at_its_default_alone():
    assert to_mapping(from_mapping(Section, {}, "test")) == {"old": 1}
    assert to_mapping(from_mapping(Section, {"new": False}, "test")) == {"old": 1}
    assert to_mapping(from_mapping(Section, {"new": True}, "test")) == {"old": 1, "new": True}
