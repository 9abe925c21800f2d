"""Sets of embeddings as one matrix, and cohorts."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.arks import iter_vectors
from wespeaker_lite.kaldi.tables import iter_counts, sorted_keys


@dataclass(frozen=True)
class Embeddings:
    """Embeddings: `vectors` (N, D) float32, `index` utterance -> row, and, if known, lengths `frames` (N,)."""

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
        """The embeddings of some utterances, in this order.

        Raises:
            InputError: as `rows`.
        """
        rows = self.rows(utterances)
        frames = None if self.frames is None else self.frames[rows]
        return Embeddings(self.vectors[rows], {key: row for row, key in enumerate(utterances)}, frames)

    def unit(self, mean: np.ndarray | None = None) -> "Embeddings":
        """Subtract `mean`, (D,) or (N, D), and scale to unit norm. Cosine scores are dot products of the results.

        Raises:
            InputError: naming an utterance whose embedding is not finite, or zero after subtraction; or if sizes
                differ.
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
    """A cohort: `embeddings` of speakers or utterances, and the `mean` (D,) over all their utterances."""

    embeddings: Embeddings
    mean: np.ndarray


def read_embeddings(
    scp: str | Path, utt2num_frames: str | Path | None = None, only: Collection[str] | None = None
) -> Embeddings:
    """Read the embeddings of an scp file, or those of the utterances in `only`, with lengths in frames.

    Raises:
        InputError: naming an utterance whose vector is missing, cut, or of another size than the first, or whose length
            is unknown.
    """
    index: dict[str, int] = {}
    values, size = bytearray(), 0  # grows in place; a list of arrays would need twice the memory
    for row, (utterance, vector) in enumerate(_vectors(scp, only)):
        index[utterance] = row
        values += vector.data
        size = vector.size
    if not index:
        raise InputError(f"{scp}: has none of the requested utterances")
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


def read_cohort(
    scp: str | Path, utt2spk: Mapping[str, str] | None, unlabelled: Collection[str] = frozenset()
) -> Cohort:
    """Read a cohort: the mean embedding of each speaker, as in wespeaker, or without `utt2spk` every utterance.

    Utterances in `unlabelled` are left out. Embeddings are summed per speaker while reading, so that the memory depends
    on the number of speakers only.

    Raises:
        InputError: naming an utterance that has no speaker, or whose vector cannot be read.
    """
    labelled = ((utterance, vector) for utterance, vector in _vectors(scp) if utterance not in unlabelled)
    return cohort_of(labelled, utt2spk)


def cohort_of(vectors: Iterable[tuple[str, np.ndarray]], utt2spk: Mapping[str, str] | None) -> Cohort:
    """Build a cohort, as `read_cohort`, from pairs of utterance and vector (D,).

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
    """Yield utterance and vector (D,) float32, and check that all have the same size."""
    size = None
    for number, utterance, vector in iter_vectors(scp, only):
        size = size or vector.size
        if vector.shape != (size,):
            raise InputError(f"{scp}:{number}: {utterance!r} has shape {vector.shape}, expected a vector of {size}")
        yield utterance, vector
