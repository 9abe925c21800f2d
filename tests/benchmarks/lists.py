"""Time and memory of each step for lists of VoxCeleb2's size: 1,092,009 utterances and two speed-perturbed copies.

    python tests/benchmarks/lists.py [--utterances 1092009] [--folder DIR]

Only lists are made: the corpus tree is simulated, and each ark has one matrix. Each step runs in its own process; steps
in parentheses prepare the input of others. The goal of a step is 60 s and 4 GB, and for opening the training set 10 s
and little private memory of a worker. Times are wall time and CPU time; other processes hardly change the latter.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from wespeaker_lite.audio.audio_list import list_audio
from wespeaker_lite.core.files import write_lines
from wespeaker_lite.corpora import voxceleb
from wespeaker_lite.corpora.augmented_copies import Copy
from wespeaker_lite.corpora.voxceleb import Options, Video
from wespeaker_lite.data.crops import CropConfig, CropDataset
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.kaldi.combine import combine
from wespeaker_lite.kaldi.split import split
from wespeaker_lite.kaldi.tables import iter_table, spk2utt_of
from wespeaker_lite.kaldi.validate import validate

SPEAKERS, ARKS, JOBS, MELS = 5994, 64, 32, 80
COPIES = ("0.9", "1.1")
ALPHABET = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"))
GOALS = {"load": 10.0}  # seconds; for all other steps 60
GIGABYTES = 4.0


def videos_of(speakers: list[str], part: str, utterances: int, ending: str) -> Iterator[Video]:
    """As many simulated videos as needed, with eight utterances each."""
    letters = np.random.default_rng(len(speakers)).choice(ALPHABET, (utterances // 8 + 1, 11))
    for number, name in zip(range(0, utterances, 8), letters.view("U11")[:, 0].tolist(), strict=False):
        speaker = speakers[number * len(speakers) // utterances]
        folder = f"/corpora/voxceleb/{part}/{speaker}/{name}"
        files = [(f"{place:05d}{ending}", 60000) for place in range(1, 1 + min(8, utterances - number))]
        yield Video(part, speaker, folder, files)


def invented(utterances: int) -> voxceleb.Walk:
    """A simulated walk over both corpora. VoxCeleb1 has its real size."""
    vox2 = [f"id{number:05d}" for number in range(12, 12 + SPEAKERS)]

    def walk(folder: Path) -> Iterator[Video]:
        if folder.name == "vox1":
            yield from videos_of(sorted(voxceleb.VOX1_DEV), "dev", 148642, ".wav")
            yield from videos_of(sorted(voxceleb.VOX1_TEST), "test", 4874, ".wav")
        else:
            yield from videos_of(vox2, "dev", utterances, ".m4a")

    return walk


def make_lists(folder: Path) -> None:
    """Trial lists of the published sizes, with simulated utterances."""
    (folder / "corpus/vox1").mkdir(parents=True)
    (folder / "corpus/vox2").mkdir()
    names = [
        f"{video.speaker}/{Path(video.folder).name}/{name}"
        for video in invented(8)(Path("vox1"))
        for name, _ in video.files
    ]
    rng = np.random.default_rng(0)
    for letter, count in voxceleb.KNOWN_TRIALS.items():
        pairs = rng.integers(len(names), size=(count, 2)).tolist()
        rows = (f"{int(names[a][:7] == names[b][:7])} {names[a]} {names[b]}\n" for a, b in pairs)
        write_lines(folder / "corpus/vox1" / voxceleb.LISTS[letter], rows)


def make_features(folder: Path) -> None:
    """Write the tables that stage 2 adds to the training set and to its copies."""
    for number in range(ARKS):
        with ArkWriter(folder / f"feats.{number}") as writer:
            writer.write("first", np.ones((200, MELS), dtype=np.float32))
    offset = len("first ")
    utt2spk = [(key, value) for _, key, value in iter_table(folder / "data/train/utt2spk")]
    for copy in (None, *(Copy(speed=float(speed)) for speed in COPIES)):
        as_copy = copy or Copy()
        renamed = {as_copy.utterance(key): as_copy.speaker(value) for key, value in utt2spk}
        out = folder / "data" / (f"train_sp{copy.speed}" if copy else "train")
        keys = sorted(renamed)
        share = -(-len(keys) // ARKS)
        places = (f"{folder}/feats.{n // share}.ark:{n % share * 64016 + offset}" for n in range(len(keys)))
        write_lines(out / "feats.scp", (f"{key} {place}\n" for key, place in zip(keys, places, strict=True)))
        write_lines(out / "utt2num_frames", (f"{key} {400 + n % 900}\n" for n, key in enumerate(keys)))
        write_lines(out / "utt2dur", (f"{key} {4 + n % 900 / 100:.2f}\n" for n, key in enumerate(keys)))
        if copy:
            write_lines(out / "utt2spk", (f"{key} {renamed[key]}\n" for key in keys))
            write_lines(out / "spk2utt", (f"{speaker} {' '.join(of)}\n" for speaker, of in spk2utt_of(renamed).items()))


def load(folder: Path) -> None:
    """Open the training set, fork a worker that reads all of it, and print the worker's private memory."""
    data = CropDataset(folder / "data/train_aug", CropConfig(200), seed=0)
    worker = os.fork()
    if worker == 0:
        before = own_memory()
        total = sum(len(name) for name in data.utterances) + int(data.labels.sum() + data.num_frames.sum())
        own = own_memory() - before
        print(
            f"    {len(data)} utterances of {len(data.classes)} classes; {own:.2f} GB of a worker are its own",
            flush=True,
        )
        os._exit(total == 0)
    os.waitpid(worker, 0)


def own_memory() -> float:
    """Gigabytes of pages that no other process shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1e6


def steps(folder: Path, utterances: int) -> dict[str, Callable[[], object]]:
    data = folder / "data"
    train, whole = data / "train", data / "train_aug"
    copies = [data / f"train_sp{Copy(speed=float(speed)).speed}" for speed in COPIES]
    return {
        "(trials)": lambda: make_lists(folder),
        "prepare": lambda: voxceleb.prepare(folder / "corpus", data, Options(), invented(utterances)),
        "validate lists": lambda: validate(train, feats=False),
        "list audio": lambda: list_audio(train),
        "split lists": lambda: split(train, JOBS, train / "split", per_utt=True),
        "(features)": lambda: make_features(folder),
        "combine": lambda: combine(whole, [train, *copies]),
        "validate": lambda: validate(whole, wav=False),
        "split": lambda: split(whole, JOBS, whole / "split", per_utt=True),
        "load": lambda: load(folder),
    }


def run_step(step: Callable[[], object], name: str) -> None:
    started, processor = time.perf_counter(), time.process_time()
    step()
    wall, used = time.perf_counter() - started, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    goal = GOALS.get(name, 60.0)
    print(
        f"{name:15}{wall:8.1f} s{used:8.1f} s of processor (goal {goal:.0f} s){peak:7.2f} GB (goal {GIGABYTES:.0f} GB)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=1092009)
    parser.add_argument("--folder", type=Path, help="where lists are put and kept")
    parser.add_argument("--step", help="only this one, in this process")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if args.step:
            run_step(steps(folder, args.utterances)[args.step], args.step)
            return
        for name in steps(folder, args.utterances):
            command = [sys.executable, __file__, "--utterances", str(args.utterances), "--folder", str(folder)]
            subprocess.run([*command, "--step", name], check=True)


if __name__ == "__main__":
    main()
