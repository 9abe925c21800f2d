"""The speed of fbanks on one thread, in multiples of real time: torchaudio, our function, our path from file to ark.

    python tests/benchmarks/fbank.py [--utterances 40] [--rounds 15]

The utterances are simulated and have 8 s. All take turns; the medians are compared.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from torchaudio.compliance import kaldi

from wespeaker_lite.audio.fbank import FbankConfig, fbank
from wespeaker_lite.audio.reading import read_audio
from wespeaker_lite.kaldi.arks import ArkWriter

SECONDS, RATE = 8, 16000


def torchaudio_alone(utterances: list[torch.Tensor]) -> None:
    for samples in utterances:
        kaldi.fbank(samples, num_mel_bins=80, dither=0.0, sample_frequency=RATE)


def file_to_ark(paths: list[str], prefix: Path) -> None:
    with ArkWriter(prefix) as writer:
        for number, path in enumerate(paths):
            writer.write(str(number), fbank(read_audio(path, RATE), FbankConfig()))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args)


def measure(folder: Path, args: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    waves = [rng.normal(0, 0.1, SECONDS * RATE).astype(np.float32) for _ in range(args.utterances)]
    tensors = [torch.from_numpy(wave)[None] * 32768 for wave in waves]
    ways: dict[str, Callable[[], object]] = {
        "torchaudio alone": lambda: torchaudio_alone(tensors),
        "fbank alone": lambda: [fbank(wave, FbankConfig()) for wave in waves],
    }
    for suffix in ("wav", "flac", "ogg"):
        paths = [str(folder / f"{number}.{suffix}") for number in range(args.utterances)]
        for path, wave in zip(paths, waves, strict=True):
            soundfile.write(path, wave, RATE)
        ways[f"file to ark, {suffix}"] = lambda paths=paths: file_to_ark(paths, folder / "feats")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds + 1):
        for name, work in ways.items():
            times[name].append(seconds(work))
    audio = args.utterances * SECONDS
    speeds = {name: audio / statistics.median(took[1:]) for name, took in times.items()}  # the first round warms up
    for name, speed in speeds.items():
        print(f"{name:18} {speed:6.0f} x real time, {speed / speeds['torchaudio alone']:5.2f} of torchaudio alone")


if __name__ == "__main__":
    main()
