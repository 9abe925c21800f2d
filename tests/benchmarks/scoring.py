"""Trials per second of cosine scoring and AS-norm, against a plain loop over trials; and VoxCeleb1-E at full size.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.scoring [loops] [size]

Both start from utterance ids and embeddings in memory. The loop looks two vectors up, subtracts the mean and computes
their cosine, by numpy's dot and norm as a minimum, and by torch's `cosine_similarity` as in other toolkits. For AS-norm
it compares both with the cohort and uses the highest 300 scores of each. The loop's rate does not depend on the number
of trials, so it is timed on some of them. The two sides take turns; medians are printed.

Full size: `bin.score` as in stage 6, on simulated embeddings of 256 dimensions: 579,818 trials of 145,160 utterances,
and a training set of 1,092,009 utterances of 5,994 speakers, with AS-norm, QMF and PLDA. The time includes reading of
arks, lists and lengths, and writing of scores. The goal is 60 s and 4 GB. On a busy machine, use the CPU time.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from wespeaker_lite.extraction.embeddings import Embeddings
from wespeaker_lite.scoring.cosine import cosine_scores
from wespeaker_lite.scoring.normalisation import cohort_statistics, normalise_scores

SIZE, COHORT, TOP_N, TURNS = 192, 6000, 300, 7
FILES = {
    "--embeddings": "test/xvector.scp",
    "--frames": "test/utt2num_frames",
    "--cohort": "train/xvector.scp",
    "--cohort-utt2spk": "train/utt2spk",
    "--cohort-frames": "train/utt2num_frames",
    "--trials": "vox1_E",
    "--out": "exp",
}


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


def loops() -> None:
    for trials, utterances in ((28_500, 1_500), (500_000, 5_000)):
        work = Workload(trials, utterances)
        compare("cosine, loop with numpy", work.cosine, work.plain_cosine, sample=2000)
        compare("cosine, loop with torch", work.cosine, work.plain_torch, sample=2000)
        compare("asnorm, loop with numpy", work.asnorm, work.plain_asnorm, sample=20)


def write_set(folder: Path, speakers: int, utterances: int, seed: int) -> list[str]:
    """Embeddings, speakers and lengths of a simulated set with VoxCeleb's id format."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    names = [f"id{row * speakers // utterances:05d}-{row // 5:011d}-{row:07d}" for row in range(utterances)]
    voices = rng.standard_normal((speakers, 256), np.float32)
    record = np.dtype([("key", "S28"), ("mark", "S6"), ("size", "<i4"), ("values", "<f4", 256)])
    with (folder / "xvector.ark").open("wb") as file:
        for start in range(0, utterances, 2**14):
            rows = np.arange(start, min(start + 2**14, utterances))
            block = np.empty(len(rows), record)
            block["key"] = [f"{names[row]} ".encode() for row in rows]
            block["mark"], block["size"] = b"\0BFV \4", 256
            noise = 1.5 * rng.standard_normal((len(rows), 256), np.float32)
            block["values"] = voices[rows * speakers // utterances] + noise
            block.tofile(file)
    places = (f"{name} {folder}/xvector.ark:{row * record.itemsize + 28}\n" for row, name in enumerate(names))
    (folder / "xvector.scp").write_text("".join(places))
    (folder / "utt2spk").write_text("".join(f"{name} {name[:7]}\n" for name in names))
    frames = zip(names, rng.integers(400, 3000, utterances), strict=True)
    (folder / "utt2num_frames").write_text("".join(f"{name} {count}\n" for name, count in frames))
    return names


def write_list(path: Path, names: list[str], speakers: int, trials: int) -> None:
    """A list in which half of the trials are targets, as in VoxCeleb1-E."""
    rng = np.random.default_rng(2)
    enroll = rng.integers(0, len(names), trials)
    near = (enroll + rng.integers(1, len(names) // speakers // 2, trials)) % len(names)
    test = np.where(rng.random(trials) < 0.5, near, rng.integers(0, len(names), trials))
    pairs = ((names[one], names[two]) for one, two in zip(enroll, test, strict=True))
    path.write_text("".join(f"{one} {two} {'target' if one[:7] == two[:7] else 'nontarget'}\n" for one, two in pairs))


def size() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = write_set(root / "test", 1251, 145_160, seed=0)
        write_set(root / "train", 5994, 1_092_009, seed=1)
        write_list(root / "vox1_E", names, 1251, 579_818)
        for scorings in ("cosine asnorm", "cosine asnorm asnorm_qmf", "cosine asnorm asnorm_qmf plda plda_qmf"):
            score(root, scorings)


def score(root: Path, scorings: str) -> None:
    command = [sys.executable, "-m", "wespeaker_lite.bin.score", "--scorings", scorings]
    for option, name in FILES.items():
        command += [option, f"{root}/{name}"]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = code
    if code:
        sys.exit(f"bin.score ended with {code}")
    wall, cpu = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
    print(
        f"{scorings}: {wall:.0f} s, {cpu:.0f} s of CPU (goal 60), {usage.ru_maxrss / 2**20:.2f} GB at most (goal 4)",
        flush=True,
    )


def main() -> None:
    for part in sys.argv[1:] or ("loops", "size"):
        {"loops": loops, "size": size}[part]()


if __name__ == "__main__":
    main()
