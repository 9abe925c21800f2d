"""Embeddings as one matrix with a row for each utterance, and the cohort they are compared with."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.arks import iter_vectors
from wespeaker_lite.kaldi.tables import iter_counts, sorted_keys


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of utterances: `vectors` (N, D) float32, each utterance's row in them, its `frames` (N,) if known."""

    vectors: np.ndarray
    index: Mapping[str, int]
    frames: np.ndarray | None = None

    def rows(self, utterances: list[str]) -> np.ndarray:
        """Look up the rows of utterances, (n,) int64.

        Raises:
            InputError: naming the first utterance that has no embedding.
        """
        try:
            return np.fromiter(map(self.index.__getitem__, utterances), np.int64, len(utterances))
        except KeyError as error:
            raise InputError(f"utterance {error.args[0]!r} has no embedding; run stage 5 again for its set") from None

    def select(self, utterances: list[str]) -> "Embeddings":
        """The embeddings of some utterances only, in their order.

        Raises:
            InputError: as `rows`.
        """
        rows = self.rows(utterances)
        frames = None if self.frames is None else self.frames[rows]
        return Embeddings(self.vectors[rows], {key: row for row, key in enumerate(utterances)}, frames)

    def unit(self, mean: np.ndarray | None = None) -> "Embeddings":
        """Embeddings less `mean`, (D,) or of each (N, D), scaled to length 1; cosine scores are their plain products.

        Raises:
            InputError: naming an utterance whose embedding is not finite, or zero once centred; or where sizes differ.
        """
        if mean is not None and mean.shape[-1:] != self.vectors.shape[1:]:
            raise InputError(f"embeddings have {self.vectors.shape[1]} values, the cohort's have {mean.shape[-1]}")
        centred = self.vectors - mean if mean is not None else self.vectors
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
        if bad.size:
            name = next(key for key, row in self.index.items() if row == bad[0])
            fault = "is zero" if norms[bad[0]] == 0 else "is not finite"
            raise InputError(f"the embedding of {name!r} {fault}; look at its audio and at the model")
        return Embeddings(centred / norms, self.index, self.frames)


@dataclass(frozen=True)
class Cohort:
    """Impostors: `embeddings`, a row for each speaker or utterance, and the `mean` (D,) of all their utterances."""

    embeddings: Embeddings
    mean: np.ndarray


def read_embeddings(
    scp: str | Path, utt2num_frames: str | Path | None = None, only: Collection[str] | None = None
) -> Embeddings:
    """Read the embeddings that an scp file lists, or those of the utterances in `only`, and their lengths in frames.

    Raises:
        InputError: naming an utterance whose vector is missing, cut, or of another size than the first, or whose length
            is not known.
    """
    index: dict[str, int] = {}
    values, size = bytearray(), 0  # grows in place, where a list of arrays would take the memory twice
    for row, (utterance, vector) in enumerate(_vectors(scp, only)):
        index[utterance] = row
        values += vector.data
        size = vector.size
    if not index:
        raise InputError(f"{scp}: none of the utterances asked for is in it")
    frames = _read_frames(utt2num_frames, index) if utt2num_frames else None
    return Embeddings(np.frombuffer(values, np.float32).reshape(-1, size), index, frames)


def _read_frames(path: str | Path, index: Mapping[str, int]) -> np.ndarray:
    frames = np.zeros(len(index), np.int64)
    for utterance, count in iter_counts(path):
        if utterance in index:
            frames[index[utterance]] = count
    if not frames.all():
        missing = next(utterance for utterance, row in index.items() if not frames[row])
        raise InputError(f"{path}: no length of utterance {missing!r}; run stage 2 again for its set")
    return frames


def read_cohort(scp: str | Path, utt2spk: Mapping[str, str] | None) -> Cohort:
    """Read a cohort: the mean embedding of each speaker, as wespeaker has it, or with no `utt2spk` every utterance's.

    Speakers are summed while reading, so that a cohort of a million utterances takes no more memory than its speakers.

    Raises:
        InputError: naming an utterance that has no speaker, or whose vector cannot be read.
    """
    return cohort_of(_vectors(scp), utt2spk)


def cohort_of(vectors: Iterable[tuple[str, np.ndarray]], utt2spk: Mapping[str, str] | None) -> Cohort:
    """The same of utterances and their vectors (D,), one by one.

    Raises:
        InputError: naming an utterance that has no speaker.
    """
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for utterance, vector in vectors:
        name = utt2spk.get(utterance) if utt2spk is not None else utterance
        if name is None:
            raise InputError(f"utt2spk: no speaker for utterance {utterance!r} of the cohort")
        if name not in sums:
            sums[name], counts[name] = np.zeros(vector.size), 0
        sums[name] += vector
        counts[name] += 1
    names = sorted_keys(sums)
    means = np.stack([sums[name] / counts[name] for name in names]).astype(np.float32)
    mean = sum(sums[name] for name in names) / sum(counts.values())
    return Cohort(Embeddings(means, {name: row for row, name in enumerate(names)}), mean.astype(np.float32))


def _vectors(scp: str | Path, only: Collection[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield utterance and vector (D,) float32, one by one, all of one size."""
    size = None
    for number, utterance, vector in iter_vectors(scp, only):
        size = size or vector.size
        if vector.shape != (size,):
            raise InputError(f"{scp}:{number}: {utterance!r} has shape {vector.shape}, expected a vector of {size}")
        yield utterance, vector
