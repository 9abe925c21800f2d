"""A mismatch of student and teacher is found before the teacher is trained. test_conf.py checks all confs."""

from pathlib import Path

import pytest
import yaml

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.distill.compatibility import check_compatibility
from wespeaker_lite.recipe.experiment import from_given

BC_CMT = {"name": "bc_cmt", "channels": [8, 8], "depth": [1, 1], "strides": [2, 2], "embed_dim": 8}
ECAPA = {"name": "ecapa_tdnn", "channels": 16}
ATTENTION = {"name": "attention"}


def checked(tmp_path: Path, term: dict, student: dict, teacher: dict, source: str = "crop", **more: object) -> None:
    taught = {"model": student, "distill": {"teacher": "conf/t.yaml", "source": source, "terms": [term]}}
    pupil = written(tmp_path / "student.yaml", taught)
    check_compatibility(pupil, written(tmp_path / "teacher.yaml", {"model": teacher, **more}))


def written(path: Path, given: dict) -> Path:
    path.write_text(yaml.safe_dump(to_mapping(from_given(given, path.name))))
    return path


@pytest.mark.parametrize("name", ["attention", "label", "embedding", "decoupled", "relational", "similarity", "hint"])
def test_matching_student_and_teacher_pass(name: str, tmp_path: Path) -> None:
    checked(tmp_path, {"name": name}, BC_CMT, {**BC_CMT, "channels": [16, 16]})


def test_embeddings_of_whole_utterances_allow_other_features(tmp_path: Path) -> None:
    checked(tmp_path, {"name": "embedding"}, BC_CMT, ECAPA, "utterance", features={"num_mels": 40})


@pytest.mark.parametrize(
    ("term", "teacher", "changes", "message"),
    [
        (ATTENTION, ECAPA, {}, "the teacher has none"),
        (ATTENTION, {**BC_CMT, "heads": 2}, {}, "the student has 4 and the teacher 2"),
        (ATTENTION, {**BC_CMT, "stem_stride": [2, 1]}, {}, "the student's stride over time is 2, the teacher's 1"),
        (ATTENTION, {**BC_CMT, "channels": [8], "depth": [1], "strides": [2]}, {}, "has 2 and the teacher 1"),
        ({"name": "label"}, ECAPA, {"pretrained": "campplus"}, "a teacher with a head"),
        ({"name": "decoupled"}, ECAPA, {"pretrained": "campplus"}, "a teacher with a head"),
        ({"name": "hint", "layers": [[1, 4]]}, ECAPA, {}, "the student has 2 and the teacher 3"),
        ({"name": "hint"}, ECAPA, {"source": "utterance"}, "the teacher has none"),
        ({"name": "similarity", "against": "bank"}, ECAPA, {}, "has no bank"),
        ({"name": "embedding"}, ECAPA, {"features": {"num_mels": 40}}, "num_mels 40, not 80"),
    ],
)
def test_mismatches_are_errors(term: dict, teacher: dict, changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        checked(tmp_path, term, BC_CMT, teacher, **changes)
