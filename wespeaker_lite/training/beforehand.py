"""What would end a training with an error, told before others are trained for it, which may take hours."""

from pathlib import Path

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.data.sampler import EpochSampler
from wespeaker_lite.distill.teacher import NetworkTeacher, check_embedded
from wespeaker_lite.kaldi.arks import read_scp
from wespeaker_lite.recipe import resolved, trained_model
from wespeaker_lite.recipe.experiment import load
from wespeaker_lite.training.job import Job, check_start, open_dataset
from wespeaker_lite.training.trainer import batches_of_epoch


def check_training(job: Job, processes: int) -> None:
    """Compare the config of a job with its data and with the models that are there already.

    job: `teachers` are those that are not trained first. `start_from` is a final.pt, or the config.yaml of what is
    trained first. processes: how many share the training.

    Raises:
        InputError: as `wespeaker_lite.training.job.train`.
    """
    experiment = load(job.config)
    dataset = open_dataset(job, experiment)
    train = experiment.train
    batches = batches_of_epoch(train, len(dataset), processes)
    dataset.groups(train.sampling)
    EpochSampler(
        len(dataset), train.batch_size, experiment.seed, 0, num_batches=batches, world_size=processes,
        labelled=dataset.labelled, unlabelled_share=train.unlabelled_share,
    )  # fmt: skip
    distill = experiment.distill
    if distill.embeddings:
        check_embedded(distill.embeddings, read_scp(distill.embeddings), dataset.utterances)
    if distill.classifier == "head":
        sees = to_mapping(experiment) if distill.source == "crop" else None
        for teacher in job.teachers:
            NetworkTeacher(teacher, sees, dataset.classes)
    if job.start_from:
        start = Path(job.start_from)
        if start.suffix == ".yaml":
            config = resolved.read(start)
            has_head = not config.get("pretrained")  # imported weights have none
        else:
            record = trained_model.load_record(start)
            config, has_head = record["config"], record["head"] is not None
        check_start(job.start_from, config, has_head, experiment)
