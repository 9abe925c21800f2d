"""The section `distill` of a config."""

from dataclasses import dataclass
from typing import Any, Literal

from wespeaker_lite.core.config import bounded


@dataclass(frozen=True)
class DistillConfig:
    """The teachers of a student, and the KD terms.

    Attributes:
        teacher: a conf that stage 3 trains or fetches, or the final.pt of a trained model. Empty for none.
        source: `crop`: the teacher gets the student's crop. `utterance`: the teacher's embeddings of whole utterances
            are computed once, before training.
        embeddings: an .scp of embeddings from elsewhere, instead of a teacher. Empty for none.
        teachers: several teachers, each as in `teacher`.
        combine: with several teachers, the `mean` of each term's losses, or the lowest for each batch (`best`).
        teacher_weights: weights of the teachers in the mean. Empty for equal weights.
        classifier: with embeddings computed once, the teacher's own `head`, or `centroids`: the mean embedding of each
            training speaker. With centroids, the teacher needs no head and may be trained on other speakers.
        terms: the KD terms, each with its name and options: `{name: label, weight: 1.0}`.
    """

    teacher: str = ""
    source: Literal["crop", "utterance"] = "crop"
    embeddings: str = ""
    teachers: tuple[str, ...] = ()
    combine: Literal["mean", "best"] = "mean"
    teacher_weights: tuple[float, ...] = bounded((), 1e-6, 1e6)
    classifier: Literal["head", "centroids"] = "head"
    terms: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if bool(self.teacher) + bool(self.embeddings) + bool(self.teachers) > 1:
            raise ValueError("expected only one of teacher, teachers and embeddings")
        if any(not name or len(name.split()) != 1 for name in self.teachers):
            raise ValueError("expected names without spaces in teachers")
        if len(set(self.teachers)) < len(self.teachers):
            raise ValueError("a teacher appears twice in teachers")
        if self.teacher_weights and len(self.teacher_weights) != len(self.teachers):
            raise ValueError("expected as many teacher_weights as teachers")
        if self.teacher_weights and self.combine == "best":
            raise ValueError("combine: best uses no teacher_weights")
        if self.classifier == "centroids" and self.source != "utterance" and not self.embeddings:
            raise ValueError("centroids need embeddings computed once: set source: utterance")

    @property
    def all_teachers(self) -> tuple[str, ...]:
        """The teacher or the teachers: confs or files of trained models."""
        return (self.teacher,) if self.teacher else self.teachers
