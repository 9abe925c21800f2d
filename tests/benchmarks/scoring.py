"""Trials per second of cosine scoring and AS-norm, against a plain loop over trials.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.scoring

Both begin with utterance ids and embeddings as they are read. A loop looks two vectors up, subtracts the mean and takes
their cosine: by numpy's dot and norm, the least there is to do, and by torch's `cosine_similarity`, as toolkits do. For
AS-norm it compares both with the cohort and takes the highest 300 scores of each. A loop's rate does not depend on the
number of trials, so that it is timed on some of them. The two sides take turns; medians are given.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from wespeaker_lite.scoring.cosine import cosine_scores
from wespeaker_lite.scoring.embeddings import Embeddings
from wespeaker_lite.scoring.normalisation import cohort_statistics, normalise_scores

SIZE, COHORT, TOP_N, TURNS = 192, 6000, 300, 7


class Workload:
    """Random embeddings and trials grouped by enrolment, as lists are."""

    def __init__(self, trials: int, utterances: int) -> None:
        rng = np.random.default_rng(0)
        names = [f"id{number // 20:05d}-{number % 20:05d}" for number in range(utterances)]
        vectors = rng.standard_normal((utterances, SIZE)).astype(np.float32)
        self.embeddings = Embeddings(vectors, {name: row for row, name in enumerate(names)})
        self.plain = dict(zip(names, vectors, strict=True))
        self.mean = vectors.mean(axis=0)
        cohort = rng.standard_normal((COHORT, SIZE)).astype(np.float32)
        self.cohort = cohort / np.linalg.norm(cohort, axis=1, keepdims=True)
        self.enroll = [names[row] for row in np.sort(rng.integers(0, utterances, trials))]
        self.test = [names[row] for row in rng.integers(0, utterances, trials)]

    def cosine(self) -> np.ndarray:
        unit = self.embeddings.unit(self.mean)
        return cosine_scores(unit.vectors, unit.rows(self.enroll), unit.rows(self.test))

    def asnorm(self) -> np.ndarray:
        unit = self.embeddings.unit(self.mean)
        rows = unit.rows(self.enroll), unit.rows(self.test)
        near = cohort_statistics(unit.vectors, self.cohort, TOP_N)
        return normalise_scores(cosine_scores(unit.vectors, *rows), *rows, near)

    def plain_cosine(self, trials: int) -> list[float]:
        scores = []
        for enroll, test in zip(self.enroll[:trials], self.test[:trials], strict=True):
            x, y = self.plain[enroll] - self.mean, self.plain[test] - self.mean
            scores.append(float(np.dot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y))))
        return scores

    def plain_torch(self, trials: int) -> list[float]:
        scores = []
        for enroll, test in zip(self.enroll[:trials], self.test[:trials], strict=True):
            x, y = (torch.from_numpy(self.plain[name] - self.mean) for name in (enroll, test))
            scores.append(float(torch.nn.functional.cosine_similarity(x, y, dim=0)))
        return scores

    def plain_asnorm(self, trials: int) -> list[float]:
        scores = []
        for enroll, test in zip(self.enroll[:trials], self.test[:trials], strict=True):
            sides = [vector / np.linalg.norm(vector) for vector in (self.plain[n] - self.mean for n in (enroll, test))]
            nearest = [np.sort(self.cohort @ side)[-TOP_N:] for side in sides]
            raw = np.dot(*sides)
            scores.append(float(np.mean([(raw - near.mean()) / near.std() for near in nearest])))
        return scores


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(name: str, blocks: Callable[[], np.ndarray], loop: Callable[[int], list[float]], sample: int) -> None:
    trials = len(blocks())
    difference = np.abs(blocks()[:sample] - loop(sample)).max()
    turns = [(seconds(blocks) / trials, seconds(lambda: loop(sample)) / sample) for _ in range(TURNS)]
    ours, plain = (statistics.median(side) for side in zip(*turns, strict=True))
    print(
        f"{name:26} {trials:7,} trials: {1 / ours:12,.0f} trials/s, plain loop {1 / plain:10,.0f} trials/s, "
        f"ratio {plain / ours:8,.0f}, largest difference {difference:.1e}",
        flush=True,
    )


def main() -> None:
    for trials, utterances in ((28_500, 1_500), (500_000, 5_000)):
        work = Workload(trials, utterances)
        compare("cosine, loop with numpy", work.cosine, work.plain_cosine, sample=2000)
        compare("cosine, loop with torch", work.cosine, work.plain_torch, sample=2000)
        compare("asnorm, loop with numpy", work.asnorm, work.plain_asnorm, sample=20)


if __name__ == "__main__":
    main()
