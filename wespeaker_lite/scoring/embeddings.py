"""Embeddings as one matrix with a row for each utterance, and the cohort they are compared with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lite.data.arks import iter_scp, read_array
from wespeaker_lite.data.tables import read_table, sorted_keys
from wespeaker_lite.errors import InputError


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of utterances: `vectors` (N, D) float32, and each utterance's row in them."""

    vectors: np.ndarray
    index: Mapping[str, int]

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
        return Embeddings(self.vectors[self.rows(utterances)], {key: row for row, key in enumerate(utterances)})

    def unit(self, mean: np.ndarray | None = None) -> "Embeddings":
        """Embeddings less `mean` (D,), scaled to length 1; cosine scores are their plain products.

        Raises:
            InputError: naming an utterance whose embedding is not finite, or zero once centred; or where sizes differ.
        """
        if mean is not None and mean.shape != self.vectors.shape[1:]:
            raise InputError(f"embeddings have {self.vectors.shape[1]} values, the cohort's have {mean.size}")
        centred = self.vectors - mean if mean is not None else self.vectors
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
        if bad.size:
            name = next(key for key, row in self.index.items() if row == bad[0])
            fault = "is zero" if norms[bad[0]] == 0 else "is not finite"
            raise InputError(f"the embedding of {name!r} {fault}; look at its audio and at the model")
        return Embeddings(centred / norms, self.index)


@dataclass(frozen=True)
class Cohort:
    """Impostors: `embeddings`, a row for each speaker or utterance, and the `mean` (D,) of all their utterances."""

    embeddings: Embeddings
    mean: np.ndarray


def read_embeddings(scp: str | Path) -> Embeddings:
    """Read the embeddings that an scp file lists.

    Raises:
        InputError: naming an utterance whose vector is missing, cut, or of another size than the first.
    """
    index, vectors = {}, []
    for row, (utterance, vector) in enumerate(_vectors(scp)):
        index[utterance] = row
        vectors.append(vector)
    return Embeddings(np.stack(vectors), index)


def read_cohort(scp: str | Path, utt2spk: str | Path | None) -> Cohort:
    """Read a cohort: the mean embedding of each speaker, as wespeaker has it, or with no `utt2spk` every utterance's.

    Speakers are summed while reading, so that a cohort of a million utterances takes no more memory than its speakers.

    Raises:
        InputError: naming an utterance that has no speaker, or whose vector cannot be read.
    """
    speaker_of = read_table(utt2spk) if utt2spk else None
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for utterance, vector in _vectors(scp):
        name = speaker_of.get(utterance) if speaker_of is not None else utterance
        if name is None:
            raise InputError(f"{utt2spk}: no speaker for utterance {utterance!r} of {scp}")
        sums[name] = sums.get(name, 0.0) + vector.astype(np.float64)
        counts[name] = counts.get(name, 0) + 1
    names = sorted_keys(sums)
    means = np.stack([sums[name] / counts[name] for name in names]).astype(np.float32)
    mean = sum(sums[name] for name in names) / sum(counts.values())
    return Cohort(Embeddings(means, {name: row for row, name in enumerate(names)}), mean.astype(np.float32))


def _vectors(scp: str | Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield utterance and vector (D,) float32, one by one, all of one size."""
    size = None
    for number, utterance, location in iter_scp(scp):
        vector = read_array(utterance, location)
        size = size or vector.size
        if vector.shape != (size,):
            raise InputError(f"{scp}:{number}: {utterance!r} has shape {vector.shape}, expected a vector of {size}")
        yield utterance, vector.astype(np.float32, copy=False)
