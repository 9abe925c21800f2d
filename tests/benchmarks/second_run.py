"""A second run on a large corpus: seconds that the stages' checks take when all is done already.

    python -m tests.benchmarks.second_run [--utterances 1200000] [--folder DIR]

The corpus is a tree of empty files, looked at file by file as --corpus own does. The training set, two copies at other
speeds and what joins them have tables of as many lines and sparse arks. Each check is the program that a stage calls,
in a process of its own. The goal is 30 s for all of them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wespeaker_lite.core.files import write_lines

IN_A_FOLDER, ARKS = 200, 32
TABLES = ("wav.scp", "utt2spk", "spk2utt", "audio.list")
FEATURES = ("feats.scp", "feats.sum", "utt2num_frames", "utt2dur", "features.json")
SETS = ("train", "train_sp0.9", "train_sp1.1", "train_aug_sp0.9-1.1")


def make_corpus(folder: Path, utterances: int) -> None:
    """Empty files, so many in a folder."""
    for first in range(0, utterances, IN_A_FOLDER):
        speaker = folder / f"s{first // IN_A_FOLDER:05d}"
        speaker.mkdir(parents=True)
        for number in range(min(IN_A_FOLDER, utterances - first)):
            os.mknod(speaker / f"{number:05d}.wav")


def make_set(folder: Path, utterances: int) -> list[str]:
    """Tables of one line for each utterance, and arks that are all holes."""
    names = [folder / name for name in (*TABLES, *FEATURES)]
    arks = [folder / f"fbank/feats.{number}.ark" for number in range(ARKS)]
    (folder / "fbank").mkdir(parents=True)
    for name in names:
        lines = (
            f"s{number // IN_A_FOLDER:05d}-{number:07d} corpus/s/{number:07d}.wav\n" for number in range(utterances)
        )
        write_lines(name, lines)
    for ark in arks:
        with open(ark, "wb") as file:
            file.write(ark.name.encode())
            file.truncate(1 << 20)
    return [str(path) for path in (*names, *arks)]


def checks(utterances: int) -> dict[str, tuple[list[str], list[str]]]:
    """For each check its arguments, in order, and the outputs of its stage."""
    lists, words = [f"data/train/{name}" for name in TABLES], ["--words", "some"]
    found = {
        "stage 0": (["data/.get.stamp", *words], ["corpus"]),
        "stage 1": (["data/.lists.stamp", "--files", "data/.get.stamp", "--trees", "corpus"], lists),
    }
    for name in SETS:
        made = make_set(Path("data") / name, utterances)
        files = [f"data/{name}/audio.list", f"data/{name}/utt2spk"]
        stamp = f"data/{name}/.fbank.stamp"
        found[f"stage 2, {name}"] = ([stamp, "--files", *files, "--current", "data/.lists.stamp"], made)
    read = [f"data/{SETS[-1]}/{name}" for name in ("feats.sum", "utt2spk")]
    current = ["--current", f"data/{SETS[-1]}/.fbank.stamp"]
    Path("final.pt").write_text("weights")
    Path("xvector.ark").write_text("embeddings")
    found["stage 4"] = (["exp.train.stamp", "--files", *read, *current], ["final.pt"])
    read, current = ["data/train/feats.sum"], ["--current", "data/train/.fbank.stamp"]
    found["stage 5"] = ([".embed.stamp", "--files", *read, *current], ["xvector.ark"])
    read = [".embed.stamp", "data/train/utt2spk", "data/train/utt2num_frames"]
    found["stage 6"] = ([".score.stamp", "--files", *read, "--current", ".embed.stamp", "data/.lists.stamp"], [])
    return found


def main() -> None:
    """Make all of it, leave stamps, and time the checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=1_200_000)
    parser.add_argument("--folder", type=Path, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        os.chdir(folder)
        make_corpus(Path("corpus"), args.utterances)
        stages = checks(args.utterances)
        program = [sys.executable, "-m", "wespeaker_lite.bin.stamp"]
        time.sleep(0.2)  # a file that has just been written is read again
        for arguments, outputs in stages.values():
            subprocess.run([*program, "write", *arguments, "--outputs", *outputs], check=True)
        for turn in ("files are looked at", "a second run"):
            total, used = 0.0, os.times()
            for name, (arguments, _) in stages.items():
                started = time.monotonic()
                subprocess.run([*program, "check", *arguments], check=True)
                total += time.monotonic() - started
                print(f"{turn}: {name}: {time.monotonic() - started:.2f} s", flush=True)
            now = os.times()
            seconds = now.children_user + now.children_system - used.children_user - used.children_system
            print(f"{turn}: {total:.1f} s in all, {seconds:.1f} s of the processor (goal 30)", flush=True)


if __name__ == "__main__":
    main()
