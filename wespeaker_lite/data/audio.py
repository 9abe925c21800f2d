"""Audio of a data directory as mono float32 at one sampling rate: files, pipes and segments of recordings."""

import functools
import io
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import torch
import torchaudio.transforms

from wespeaker_lite.data.audio_list import iter_audio
from wespeaker_lite.data.data_dir import iter_segments
from wespeaker_lite.errors import InputError

log = logging.getLogger(__name__)

OVERSHOOT = 0.5  # seconds that a segment may end after its recording, as Kaldi's extract-segments allows
_MP3_FRAME = 1152  # samples; a length that an mp3 does not tell is misjudged by less
_RUN_UP = 10 * _MP3_FRAME  # samples that a lossy decoder needs after a jump before it is right again
_UNKNOWN_LENGTH = 0x7FFFF000  # programs that write wav to a pipe claim this length or more
_CUT_DATA = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_OGG_PAGE = 65307  # bytes, at most
_OGG_HEADER = 27  # bytes of a page before the lengths of its segments


def read_audio(value: str, sample_rate: int, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """Read what a line of wav.scp names, a path or `command |`, from `start` to `end` (seconds): (n,) float32.

    Channels are averaged and another sampling rate is converted; the log says so once per process.

    Raises:
        InputError: naming path or command, where it is missing, empty, cut, no audio, fails or is not finite, or where
            the segment lies outside it.
    """
    try:
        stream = io.BytesIO(_output_of(value)) if value.endswith("|") else open(value, "rb")  # noqa: SIM115
        with stream:
            samples, rate = _decode(value, stream, start, end)
    except OSError as error:
        raise InputError(f"{value}: {error.strerror or error}") from error
    if not np.isfinite(samples).all():
        raise InputError(f"{value}: the audio holds values that are not finite")
    return convert(samples, rate, sample_rate)


def convert(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Average channels and convert the sampling rate: (n, channels) float32 -> (m,) float32."""
    return _resampled(_mono(samples), rate, sample_rate)


def audio_seconds(path: str | Path) -> float:
    """How long a file lasts, without decoding it.

    Raises:
        InputError: naming the file, where it is missing, empty, cut or no audio, as far as its header tells.
    """
    try:
        with open(path, "rb") as stream, _opened(str(path), stream) as file:
            _stretch(str(path), file.frames, file.samplerate, 0.0, None)
            return file.frames / file.samplerate
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def _output_of(command: str) -> bytes:
    """Run a `command |` of wav.scp by bash; a failure anywhere in its pipe is a failure."""
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command.removesuffix("|")], capture_output=True, check=False)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise InputError(f"{command}: failed with code {done.returncode}" + (f": {words[-1]}" if words else ""))
    return done.stdout


def _decode(name: str, stream: BinaryIO, start: float, end: float | None) -> tuple[np.ndarray, int]:
    """Decode a stretch of a stream: (n, channels) float32, and the sampling rate."""
    with _opened(name, stream) as file:
        first, last = _stretch(name, file.frames, file.samplerate, start, end)
        run_up = min(first, _RUN_UP)
        if first > run_up:
            file.seek(first - run_up)
        samples = file.read(last - first + run_up, dtype="float32", always_2d=True)[run_up:]
        rate, slack = file.samplerate, _slack(file, stream)
    if len(samples) < last - first - slack:
        raise InputError(f"{name}: cut: {len(samples)} of {last - first} samples could be read")
    return samples, rate


@contextmanager
def _opened(name: str, stream: BinaryIO) -> Iterator[soundfile.SoundFile]:
    """Open a stream that is whole as far as its header tells."""
    if not stream.seek(0, os.SEEK_END):
        raise InputError(f"{name}: empty (0 bytes)")
    stream.seek(0)
    try:
        with soundfile.SoundFile(stream) as file:
            _check_whole(name, file, stream)
            yield file
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name}: cannot be decoded, cut or no audio: {error.error_string}") from error


def _check_whole(name: str, file: soundfile.SoundFile, stream: BinaryIO) -> None:
    """Raise where the header claims more than there is; libsndfile itself reads on as if nothing were missing."""
    claim = _CUT_DATA.search(file.extra_info)
    if claim and int(claim[2]) < int(claim[1]) < _UNKNOWN_LENGTH:
        raise InputError(f"{name}: cut: the header claims {claim[1]} bytes of samples, there are {claim[2]}")
    if file.format == "OGG" and _ends_within_page(stream):
        raise InputError(f"{name}: cut: the last page of the Ogg file is not whole")


def _ends_within_page(stream: BinaryIO) -> bool:
    place = stream.tell()
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - _OGG_PAGE))
    tail = stream.read()
    stream.seek(place)  # where libsndfile left it
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < _OGG_HEADER:
        return True
    segments = page[_OGG_HEADER - 1]
    return len(page) < _OGG_HEADER + segments + sum(page[_OGG_HEADER : _OGG_HEADER + segments])


def _slack(file: soundfile.SoundFile, stream: BinaryIO) -> int:
    """Samples that may be missing: none, but for an mp3 whose header does not tell a length."""
    stream.seek(0)
    if file.format != "MP3" or re.search(b"Xing|Info|VBRI", stream.read(1 << 16)):
        return 0
    _warn_once("mp3 without a length in its header: what libsndfile guesses is read, too little of variable rates")
    return _MP3_FRAME


def _stretch(name: str, frames: int, rate: int, start: float, end: float | None) -> tuple[int, int]:
    """Turn seconds into a range of samples that lies within the recording."""
    if frames == 0:
        raise InputError(f"{name}: empty: it has a header, but no samples")
    first, last = round(start * rate), frames if end is None else round(end * rate)
    if not 0 <= first < min(last, frames) or last > frames + OVERSHOOT * rate:
        raise InputError(f"{name}: the segment {start} to {end} s lies outside of the recording, {frames / rate:.2f} s")
    return first, min(last, frames)


def _mono(samples: np.ndarray) -> np.ndarray:
    """Average channels, (n, channels) -> (n,)."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    _warn_once(f"audio of {samples.shape[1]} channels: their mean is taken")
    return samples.mean(axis=1)


def _resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    if rate == wanted:
        return samples
    _warn_once(f"{rate} Hz resampled to {wanted} Hz")
    return _resampler(rate, wanted)(torch.from_numpy(samples)).numpy()


@functools.cache
def _resampler(rate: int, wanted: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(rate, wanted)


@functools.cache
def _warn_once(message: str) -> None:
    log.warning("%s (said once)", message)


@dataclass(frozen=True)
class Utterance:
    """An utterance, and where its audio is: a value of wav.scp, and seconds for a segment of it."""

    id: str
    value: str
    start: float = 0.0
    end: float | None = None


class Utterances:
    """The utterances of a data directory, with segments or without, in its order; `read` gives their samples.

    Raises:
        InputError: where wav.scp or segments are missing or malformed, a segment's recording is unknown, or wav.scp has
            a command although there are to be no `pipes`.
    """

    def __init__(self, directory: str | Path, sample_rate: int, pipes: bool = True) -> None:
        self._sample_rate = sample_rate
        self._list = list(_listed(Path(directory), pipes))
        self._recording = ("", np.empty(0, dtype=np.float32))

    def __len__(self) -> int:
        return len(self._list)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self._list)

    def read(self, utterance: Utterance) -> np.ndarray:
        """Read the samples (n,) float32; a pipe runs once for all its segments that follow each other.

        Raises:
            InputError: as `read_audio`.
        """
        value, rate = utterance.value, self._sample_rate
        if utterance.end is None or not value.endswith("|"):
            return read_audio(value, rate, utterance.start, utterance.end)
        if self._recording[0] != value:
            self._recording = (value, read_audio(value, rate))
        samples = self._recording[1]
        first, last = _stretch(value, len(samples), rate, utterance.start, utterance.end)
        return samples[first:last]


def _listed(directory: Path, pipes: bool) -> Iterator[Utterance]:
    segments, recordings = directory / "segments", iter_audio(directory / "wav.scp", pipes)
    if not segments.exists():
        yield from (Utterance(key, value) for _, key, value in recordings)
        return
    recordings = {key: value for _, key, value in recordings}
    for segment in iter_segments(segments):
        if segment.recording not in recordings:
            raise InputError(f"{segments}:{segment.line}: recording {segment.recording!r} is not in wav.scp")
        yield Utterance(segment.utterance, recordings[segment.recording], segment.start, segment.end)
