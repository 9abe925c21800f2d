"""Error rates of a model and of its exported files. Each of them embeds the recordings of the trials."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lite.audio.reading import Utterances
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.progress import with_progress
from wespeaker_lite.deploy.speaker_model import SpeakerModel
from wespeaker_lite.extraction.embeddings import Embeddings
from wespeaker_lite.kaldi.trials import Trials, check_known, read_trials
from wespeaker_lite.scoring.cosine import cosine_scores
from wespeaker_lite.scoring.results import summarise

log = logging.getLogger(__name__)

Rates = dict[str, dict[str, float]]  # by trial list and model, as fractions of 1


@dataclass(frozen=True)
class EvaluationSet:
    """A data dir with audio, and trial lists of its utterances. Lists of more than `most` utterances are left out.

    Without `pipes`, a wav.scp with commands is an error.
    """

    data: Path
    lists: Sequence[Path]
    most: int = 5000
    pipes: bool = True


def error_rates(models: Mapping[str, SpeakerModel], test: EvaluationSet) -> Rates:
    """The EER of each model on each list, with the cosine scores of `SpeakerModel.compare`.

    Raises:
        InputError: if an utterance is unknown, cannot be read, or has no embedding.
    """
    lists = _short_enough(test)
    first = next(iter(models.values()))
    utterances = Utterances(test.data, first.features.sample_rate, test.pipes)
    for trials in lists.values():
        check_known(trials, {utterance.id for utterance in utterances})
    used = {name for trials in lists.values() for name in (*trials.enroll, *trials.test)}
    chosen = [utterance for utterance in utterances if utterance.id in used]
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in models}
    for utterance in with_progress(chosen, len(chosen), "utterances"):
        samples = utterances.read(utterance)
        for name, model in models.items():
            try:
                vectors[name].append(model.embed(samples, model.features.sample_rate))
            except InputError as error:
                raise InputError(f"{utterance.id}: {error}") from error
    index = {utterance.id: row for row, utterance in enumerate(chosen)}
    found: Rates = {name: {} for name in lists}
    for name, model in models.items():
        mean = model.verification.mean if model.verification else None
        unit = Embeddings(np.stack(vectors[name]), index).unit(mean) if lists else None
        for list_name, trials in lists.items():
            scores = cosine_scores(unit.vectors, unit.rows(trials.enroll), unit.rows(trials.test))
            found[list_name][name] = summarise(trials, scores, f"{list_name} {name}")["eer"]
    return found


def _short_enough(test: EvaluationSet) -> dict[str, Trials]:
    lists = {}
    for path in test.lists:
        trials = read_trials(path)
        count = len({*trials.enroll, *trials.test})
        if count <= test.most:
            lists[path.name] = trials
        else:
            log.info("%s: %d utterances, too many to test each exported file (--eer-utterances)", path, count)
    return lists
