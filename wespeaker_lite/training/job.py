"""A training run as a job: build student, teachers and KD terms of a config, set up the log, train."""

import importlib.metadata
import logging
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wespeaker_lite import distill
from wespeaker_lite.audio.fbank import acoustics_of
from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.data.crops import CropDataset
from wespeaker_lite.distill.outputs import Outputs, outputs_for_silence
from wespeaker_lite.distill.several import Teachers
from wespeaker_lite.distill.teacher import ArkTeacher, NetworkTeacher
from wespeaker_lite.distill.term import Partners
from wespeaker_lite.kaldi.data_dir import SPK2UNLABELLED
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import Experiment, load
from wespeaker_lite.recipe.stamps import Inputs
from wespeaker_lite.training.distributed import Ranks, joined_ranks
from wespeaker_lite.training.learner import Learner
from wespeaker_lite.training.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """The inputs and outputs of a training run.

    config: the resolved config. data: the data dir. out: the folder of the experiment. teachers: their final.pt.
    teacher_embeddings: the .scp of their embeddings, if these are computed once. start_from: final.pt of the model that
    training begins with, or empty for random weights. inputs: files that change the result. Checkpoints that were made
    from others are not resumed. noise: data dir of noise clips, if crops get noise.
    """

    config: Path
    data: Path
    out: Path
    teachers: tuple[str, ...] = ()
    teacher_embeddings: tuple[str, ...] = ()
    start_from: str = ""
    inputs: tuple[str, ...] = ()
    noise: str = ""


def train(job: Job) -> None:
    """Train, or resume training, and write `final.pt`.

    Raises:
        InputError: if features, teacher, speakers or checkpoints do not fit the config.
    """
    experiment = load(job.config)
    if experiment.runtime.threads:
        torch.set_num_threads(experiment.runtime.threads)
    with joined_ranks(experiment.runtime.device, experiment.runtime.patience) as ranks:
        _log_to(job.out / "train.log", ranks)
        dataset = open_dataset(job, experiment)
        torch.manual_seed(experiment.seed)
        learner = build_learner(experiment, dataset, job.teachers, job.teacher_embeddings)
        if job.start_from:
            start_from(job.start_from, learner, experiment, dataset.classes)
        Trainer(learner, dataset, experiment, job.out, Inputs(files=job.inputs).digests(), ranks).run()


def open_dataset(job: Job, experiment: Experiment) -> CropDataset:
    """Open the training set. Without KD terms, for example for a teacher, unlabelled utterances are left out.

    Raises:
        InputError: as `CropDataset`, or if the config does not fit.
    """
    acoustics, learns_from_teachers = acoustics_of(experiment.features), bool(experiment.distill.terms)
    dataset = CropDataset(
        job.data, experiment.crop, experiment.seed, job.noise, acoustics, labelled_only=not learns_from_teachers
    )
    if dataset.num_mels != experiment.features.num_mels:
        raise InputError(f"{job.data}: {dataset.num_mels} mel bins, but the config says {experiment.features.num_mels}")
    if experiment.train.unlabelled_share and learns_from_teachers and not dataset.num_unlabelled:
        raise InputError(
            f"{job.data}: train.unlabelled_share is set, but no utterance is unlabelled ({SPK2UNLABELLED})"
        )
    labelled, others = len(dataset) - dataset.num_unlabelled, dataset.num_unlabelled
    unlabelled = f" and {others} unlabelled ones" if others else ""
    log.info("%d utterances of %d speakers%s from %s", labelled, len(dataset.classes), unlabelled, job.data)
    return dataset


def build_learner(
    experiment: Experiment,
    dataset: CropDataset,
    teachers: str | Sequence[str] = (),
    teacher_embeddings: str | Sequence[str] = (),
) -> Learner:
    """Build student, head and KD terms with random weights, and teachers.

    teachers: a final.pt, or several. teacher_embeddings: the .scp of each teacher's embeddings, if they are computed
    once.
    """
    config = to_mapping(experiment)
    student = trained_model.build_model(config)
    head = trained_model.build_head(config, student.embed_dim, len(dataset.classes))
    if not experiment.distill.terms:
        return Learner(student, head)
    paths, arks = _listed(teachers), _listed(teacher_embeddings or experiment.distill.embeddings)
    built_teachers = [build_teacher(experiment, dataset, *pair) for pair in zip_longest(paths, arks, fillvalue="")]
    student_outputs = outputs_for_silence(student, experiment.crop.frames, experiment.features.num_mels)
    partners = [
        _partners(experiment, len(dataset.classes), student_outputs, teacher) for teacher in built_teachers or [None]
    ]
    terms = distill.build_terms(
        experiment.distill.terms, partners if len(partners) > 1 else partners[0], experiment.distill
    )
    return Learner(
        student, head, terms, Teachers(built_teachers) if len(built_teachers) > 1 else next(iter(built_teachers), None)
    )


def _listed(paths: str | Sequence[str]) -> list[str]:
    return ([paths] if paths else []) if isinstance(paths, str) else list(paths)


def _partners(experiment: Experiment, classes: int, student_outputs: Outputs, teacher: nn.Module | None) -> Partners:
    """The partners of the KD terms: the outputs of student and teacher for a crop of zeros."""
    frames, teacher_outputs = experiment.crop.frames, None
    if teacher is not None:
        nobody = torch.zeros(1, dtype=torch.long)
        teacher_outputs = teacher.eval()(
            torch.zeros(1, frames, experiment.features.num_mels), nobody, nobody, inside=True
        )
    return Partners(student_outputs, teacher_outputs, experiment.head, classes, frames, getattr(teacher, "table", None))


def start_from(path: str, learner: Learner, experiment: Experiment, classes: Sequence[str]) -> None:
    """Copy the weights of a trained model to student and head. Classes that it lacks keep their random weights.

    So large-margin fine-tuning can drop the speed-perturbed speakers, and training on another corpus can add speakers.

    Raises:
        InputError: if the model is another network, has other features, or another kind of head.
    """
    trained = trained_model.load(path)
    check_start(path, trained.config, trained.head is not None, experiment)
    learner.student.load_state_dict(trained.model.state_dict())
    for name, term in learner.terms.items():
        if any(True for _ in term.parameters()):
            log.warning(
                "%s has no weights of the KD term %s, which begins with random ones; `distill: {terms: []}` removes it",
                path, name,
            )  # fmt: skip
    if trained.head is None:
        log.info("starting from %s; it has no head, so all %d classes are new", path, len(classes))
        return
    ours, theirs = trained_model.shared_classes(classes, trained.classes)
    learner.head.adopt(trained.head, ours, theirs)
    log.info(
        "starting from %s: of its %d classes %d are kept, %d are new",
        path, len(trained.classes), len(ours), len(classes) - len(ours),
    )  # fmt: skip


def check_start(path: str, theirs: Mapping[str, Any], has_head: bool, experiment: Experiment) -> None:
    """Check that training can start from a model with the config `theirs`, with or without a head. `path` names it.

    Raises:
        InputError: naming what differs.
    """
    for section in ("model", "features"):
        ours = to_mapping(getattr(experiment, section))
        different = sorted(key for key in ours.keys() | theirs[section] if ours.get(key) != theirs[section].get(key))
        if different:
            raise InputError(f"{path}: training cannot start from it: its {section} has other {', '.join(different)}")
    if has_head and _kind_of(theirs["head"]) != _kind_of(to_mapping(experiment.head)):
        raise InputError(f"{path}: its head is of another kind or has other sub-centres than the config's")


def _kind_of(head: Mapping[str, Any]) -> tuple[str, int]:
    return head["name"], head.get("subcenters", 1)


def build_teacher(
    experiment: Experiment, dataset: CropDataset, teacher: str, embeddings: str
) -> NetworkTeacher | ArkTeacher:
    """Build a teacher that gets crops, or one that reads embeddings. The latter has the head of the network, if it is
    given, or the centroids of speakers."""
    if not embeddings:
        return NetworkTeacher(teacher, to_mapping(experiment), dataset.classes)
    if experiment.distill.classifier == "centroids":
        built = ArkTeacher(embeddings, dataset.utterances)
        built.classify_by_centroids(torch.from_numpy(dataset.labels), len(dataset.classes), experiment.head)
        return built
    network = NetworkTeacher(teacher, None, dataset.classes) if teacher else None
    return ArkTeacher(embeddings, dataset.utterances, network.head if network else None)


def _log_to(path: Path, ranks: Ranks) -> None:
    """Also log to the experiment's train.log. Append the command line, revision and versions of this run first.

    With several ranks, only the first logs; the others log warnings only.
    """
    if not ranks.is_first:
        logging.getLogger().setLevel(logging.WARNING)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    log.info("# %s", " ".join(sys.argv))
    packages = ("torch", "torchaudio", "numpy", "kaldiio")
    versions = " ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    log.info("# revision %s, python %s, %s", _revision(), platform.python_version(), versions)
    if ranks.count > 1:
        log.info("%d processes share each batch", ranks.count)


def _revision() -> str:
    """The git revision of our source code, with + for uncommitted changes, or `unknown` outside a checkout."""
    command = ["git", "describe", "--always", "--dirty=+"]
    try:
        git = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return "unknown"
    return git.stdout.strip() or "unknown"
