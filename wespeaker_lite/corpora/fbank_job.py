"""The fbanks of a data directory, or a part of it, as one job."""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wespeaker_lite.audio.fbank import FbankConfig, fbank_blocks
from wespeaker_lite.audio.reading import Utterances
from wespeaker_lite.core.digests import Digests
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_lines, write_text
from wespeaker_lite.core.progress import with_progress
from wespeaker_lite.corpora.augmented_copies import Copier, Copy
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.kaldi.tables import write_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FbankJob:
    """What to compute, and where to: `out` is a prefix; `max_bad` unreadable utterances may be left out.

    Features are of the `copy` of the data, which by default is the data itself. Without `pipes` no command in wav.scp
    is run: one that has any is refused.
    """

    data: Path
    out: str
    config: FbankConfig
    copy: Copy = field(default_factory=Copy)
    max_bad: int = 0
    pipes: bool = True


def make_fbanks(job: FbankJob) -> None:
    """Write OUT.ark, .scp, .sum and .seen (of the ark), .utt2num_frames and .utt2dur; OUT.bad where some were left out.

    Every unreadable utterance is logged, with path and reason, before the job fails. Ids are those of the copy.

    Raises:
        InputError: where more than `max_bad` utterances, or all, are unreadable, or the copy lacks clips; nothing is
            left in place then.
        OSError: naming the file, where the disk is full.
    """
    utterances = Utterances(job.data, job.config.sample_rate, job.pipes)
    copier = Copier(job.copy, job.config.sample_rate, job.pipes)
    started = time.monotonic()
    num_frames: dict[str, int] = {}
    lengths: Counter[str] = Counter()
    bad: list[str] = []
    with ArkWriter(job.out) as writer:
        for utterance in with_progress(utterances, len(utterances), "utterances"):
            key = job.copy.utterance(utterance.id)
            try:
                samples = _counted(copier.blocks(key, utterances.blocks(utterance)), lengths, key)
                num_frames[key] = writer.write_blocks(key, fbank_blocks(samples, job.config))
            except InputError as error:
                bad.append(f"{utterance.id} {error}")
                log.error("%s: %s", utterance.id, error)
        _check(job, len(utterances), bad)
    write_text(f"{job.out}.sum", f"{writer.sum:x}\n")
    seen = Digests(f"{job.out}.seen")  # so that the stage's stamp need not read the ark again
    seen.add(f"{job.out}.ark", writer.digest.hexdigest())
    seen.save()
    seconds = {key: lengths[key] / job.config.sample_rate for key in num_frames}
    write_table(f"{job.out}.utt2num_frames", num_frames)
    write_table(f"{job.out}.utt2dur", {key: f"{duration:.3f}" for key, duration in seconds.items()})
    _list_bad(Path(f"{job.out}.bad"), bad)
    total, elapsed = sum(seconds.values()), time.monotonic() - started
    log.info(
        "%d utterances, %.2f hours, in %.1f s: real-time factor %.5f (%.0f x real time)",
        len(seconds), total / 3600, elapsed, elapsed / total, total / elapsed,
    )  # fmt: skip


def _counted(blocks: Iterable[np.ndarray], lengths: Counter[str], key: str) -> Iterator[np.ndarray]:
    """The blocks, whose samples are counted as they pass."""
    for block in blocks:
        lengths[key] += len(block)
        yield block


def _check(job: FbankJob, total: int, bad: list[str]) -> None:
    if len(bad) > job.max_bad or len(bad) == total:
        raise InputError(
            f"{job.data}: {len(bad)} of {total} utterances unreadable; first: {bad[0]}; "
            "fix wav.scp, or allow as many with --max-bad"
        )


def _list_bad(path: Path, bad: list[str]) -> None:
    if bad:
        log.warning("%d utterances left out: see %s", len(bad), path)
        write_lines(path, (f"{line}\n" for line in bad))
    else:
        path.unlink(missing_ok=True)
