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
    """A job that computes fbanks. `out` is a prefix. Up to `max_bad` unreadable utterances are left out.

    Features are those of the augmented `copy`, by default of the data itself. Without `pipes`, a command in wav.scp is
    an error.
    """

    data: Path
    out: str
    config: FbankConfig
    copy: Copy = field(default_factory=Copy)
    max_bad: int = 0
    pipes: bool = True


def make_fbanks(job: FbankJob) -> None:
    """Write OUT.ark, .scp, .sum, .seen, .utt2num_frames and .utt2dur, and OUT.bad if utterances were left out.

    Every unreadable utterance is logged with path and reason before the job fails. Ids are those of the copy.

    Raises:
        InputError: if more than `max_bad` utterances, or all, are unreadable, or the copy needs clips that are not
            given. No output is left then.
        OSError: naming the file, if the disk is full.
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
    """Yield the blocks, and count their samples."""
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
