"""Read the audio of a data directory as mono float32 at one sampling rate: files, pipes and segments."""

import functools
import io
import logging
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from wespeaker_lite.audio.audio_list import iter_audio
from wespeaker_lite.audio.resample import check_rate, joined, resampled
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import naming, write_lines
from wespeaker_lite.kaldi.segments import iter_segments

log = logging.getLogger(__name__)

OVERSHOOT = 0.5  # seconds that a segment may end after its recording, as Kaldi's extract-segments allows
LONGEST = 24 * 3600  # seconds of an utterance; a header that claims more is damaged or malicious
LONGEST_WHOLE = 3600  # seconds that are held in memory at once: 230 MB at 16 kHz
_MOST_CHANNELS = 256
_LOUDEST = 2.0**32  # allows unscaled 32-bit integers; features of 1e13 would not be finite
_BLOCK = 1 << 20  # samples of all channels, or bytes, per read
_SPOOL = 1 << 26  # bytes of a command's output in memory; more goes to a temporary file
_LARGEST_OUTPUT = 1 << 32  # bytes of a command's output: a wav cannot hold more
_NO_LENGTH = (1 << 63) - 1  # frames that libsndfile reports if the header has no length
_MP3_FRAME = 1152  # samples; if an mp3 has no length in its header, libsndfile's estimate is off by less
_RUN_UP = 10 * _MP3_FRAME  # samples after a seek until a lossy decoder is exact again
_UNKNOWN_LENGTH = 0x7FFFF000  # programs that write wav to a pipe put this length or more into its header
_CUT_DATA = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_OGG_PAGE = 65307  # bytes, at most
_OGG_HEADER = 27  # bytes of a page before the lengths of its segments


def read_audio(value: str, sample_rate: int, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """Read a value of wav.scp, a path or `command |`, from `start` to `end` (seconds): (n,) float32.

    Channels are averaged and another sampling rate is converted, with a warning once per process.

    Raises:
        InputError: naming path or command, as `open_recording` and `Recording.blocks`, or if it is longer than an hour.
    """
    with open_recording(value) as recording:
        return whole(recording.blocks(sample_rate, start, end), sample_rate, value)


def audio_seconds(path: str | Path) -> float:
    """The duration of a file in seconds, from its header.

    Raises:
        InputError: naming the file, as `open_recording`.
    """
    with _opened(str(path), _file(str(path))) as recording:
        return recording.seconds


def write_flac(path: str | Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write samples (n,) as FLAC of 16 bits. The file appears whole or not at all.

    It is encoded in memory, because libsndfile's error on a full disk has neither file nor reason.

    Raises:
        OSError: naming the file, if the disk is full.
    """
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, sample_rate, format="FLAC", subtype="PCM_16")
    write_lines(path, [encoded.getbuffer()])


def whole(blocks: Iterable[np.ndarray], sample_rate: int, name: str) -> np.ndarray:
    """Join consecutive blocks: (n,) float32.

    Raises:
        InputError: beginning with `name`, if they are longer than LONGEST_WHOLE.
    """
    several, room = [], LONGEST_WHOLE * sample_rate
    for block in blocks:
        several.append(block)
        room -= len(block)
        if room < 0:
            raise InputError(
                f"{name}: over {LONGEST_WHOLE / 3600:g} h, which is too long to be held in memory: "
                "split it by a segments file, or into several files"
            )
    return joined(several)


def convert(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Average channels and convert the sampling rate: (n, channels) float32 -> (m,) float32."""
    return joined(resampled([_mono(samples)], rate, sample_rate))


def check_values(name: str, samples: np.ndarray) -> None:
    """Raise InputError if samples are not finite, or so large that their features would not be."""
    loudest = max(samples.max(initial=0), -samples.min(initial=0))
    if not np.isfinite(loudest):
        raise InputError(f"{name}: the audio holds values that are not finite")
    if loudest > _LOUDEST:
        raise InputError(f"{name}: the audio holds values up to {loudest:.3g}; expected -1 to 1: scale it down")


@contextmanager
def open_recording(value: str) -> Iterator["Recording"]:
    """Open a value of wav.scp, a path or `command |`. The output of a command is kept until the block ends.

    Raises:
        InputError: naming path or command, if the command fails or, by its header, the audio is missing, empty, cut, no
            audio, or has too many channels, too high a rate or too great a length.
        OSError: if there is no space for a command's output.
    """
    with _opened(value, _output_of(value) if value.endswith("|") else _file(value)) as recording:
        yield recording


class Recording:
    """An open recording, decoded in blocks. The memory does not depend on its length, channels or rate."""

    def __init__(self, name: str, file: "_Decoder", stream: BinaryIO) -> None:
        self.name, self._file, self._stream, self._place = name, file, stream, 0
        self.rate, self.frames = file.samplerate, file.frames

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.frames / self.rate

    def blocks(self, sample_rate: int, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
        """Yield consecutive blocks (n,) float32 from `start` to `end`, in seconds, as mono at `sample_rate`.

        Raises:
            InputError: naming the recording, if it is cut, cannot be decoded, is not finite or too loud, or if the
                segment is outside of it.
        """
        first, last = self._sample_range(start, end)
        if self.rate != sample_rate:
            _warn_once(f"{self.rate} Hz resampled to {sample_rate} Hz")
        return resampled(self._decoded(first, last), self.rate, sample_rate)

    def _sample_range(self, start: float, end: float | None) -> tuple[int, int]:
        """Turn seconds into a range of samples within the recording."""
        limit = self.seconds + OVERSHOOT
        late = limit if end is None else end
        if 0 <= start < limit and start < late <= limit:
            first, last = round(start * self.rate), self.frames if end is None else round(end * self.rate)
            last = min(last, self.frames)
            if last - first > LONGEST * self.rate:
                hours = (last - first) / self.rate / 3600
                raise InputError(f"{self.name}: {hours:.0f} h by its header; expected up to {LONGEST / 3600:g} h")
            if first < last:
                return first, last
        raise InputError(
            f"{self.name}: the segment {start} to {end} s lies outside of the recording, {self.seconds:.2f} s"
        )

    def _decoded(self, first: int, last: int) -> Iterator[np.ndarray]:
        """Yield the frames from `first` to `last` as mono."""
        self._go_to(first)
        place, slack = first, self._slack()
        while place < last:
            block = self._read(last - place)
            if not len(block):
                break
            place += len(block)
            check_values(self.name, block)
            yield _mono(block)
        if place < last - slack:
            raise InputError(f"{self.name}: cut: {place - first} of {last - first} samples could be read")

    def _go_to(self, frame: int) -> None:
        if frame != self._place:  # seeking to the current place breaks mp3 decoding
            run_up = min(frame, _RUN_UP)
            with _decoding(self.name):
                self._place = self._file.seek(frame - run_up)
            self._read(run_up)

    def _read(self, frames: int) -> np.ndarray:
        """Read up to `frames` frames, but at most a block: (n, channels)."""
        size = max(1, _BLOCK // self._file.channels)
        with _decoding(self.name):
            block = self._file.read(min(size, frames), dtype="float32", always_2d=True)
        self._place += len(block)
        return block

    def _slack(self) -> int:
        """The number of samples that may be missing at the end. It is 0, except for an mp3 without a length."""
        if self._file.format != "MP3":
            return 0
        place = self._stream.tell()
        self._stream.seek(0)
        head = self._stream.read(1 << 16)
        self._stream.seek(place)  # libsndfile expects it there
        if re.search(b"Xing|Info|VBRI", head):
            return 0
        _warn_once("mp3 without a length in its header: libsndfile's estimate is used, too short for variable rates")
        return _MP3_FRAME


class _Decoder(soundfile.SoundFile):
    """A SoundFile without soundfile's seek after each read, which breaks mp3: its frames need those before them."""

    def seekable(self) -> bool:
        return False


def _file(path: str) -> BinaryIO:
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # `open` of a named pipe would wait for a writer
            raise InputError(f"{path}: not a file")
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def _output_of(command: str) -> BinaryIO:
    """Run a `command |` of wav.scp in bash with pipefail. Long output goes to a temporary file."""
    output = tempfile.SpooledTemporaryFile(_SPOOL)  # noqa: SIM115
    with tempfile.TemporaryFile() as errors:
        words = ["bash", "-o", "pipefail", "-c", command.removesuffix("|")]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors) as process:
            while chunk := process.stdout.read(_BLOCK):
                with naming(f"{tempfile.gettempdir()}, for {command}"):  # an OSError: --max-bad must not allow it
                    output.write(chunk)
                if output.tell() > _LARGEST_OUTPUT:
                    process.kill()
                    raise InputError(f"{command}: outputs over {_LARGEST_OUTPUT >> 30} GiB; split its recording")
        if process.returncode:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - _BLOCK))
            said = errors.read().decode(errors="replace").strip().splitlines()
            raise InputError(f"{command}: failed with code {process.returncode}" + (f": {said[-1]}" if said else ""))
    return output


@contextmanager
def _opened(name: str, stream: BinaryIO) -> Iterator[Recording]:
    """Check the header of a stream and yield its recording. The stream is closed at the end."""
    with stream:
        if not stream.seek(0, os.SEEK_END):
            raise InputError(f"{name}: empty (0 bytes)")
        stream.seek(0)
        with _decoding(name):
            file = _Decoder(stream)
        with file:
            _check_header(name, file)
            _check_whole(name, file, stream)
            yield Recording(name, file, stream)


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    try:
        yield
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name}: cannot be decoded, cut or no audio: {error.error_string}") from error


def _check_header(name: str, file: soundfile.SoundFile) -> None:
    """Raise InputError if the header has impossible values, which would cost too much memory or time."""
    check_rate(name, file.samplerate)
    if file.channels > _MOST_CHANNELS:
        raise InputError(f"{name}: {file.channels} channels by its header; expected up to {_MOST_CHANNELS}")
    if not file.frames:
        raise InputError(f"{name}: empty: it has a header, but no samples")
    if file.frames == _NO_LENGTH:
        raise InputError(f"{name}: no length in its header, as in a FLAC from a pipe: write it to a file, or as wav")


def _check_whole(name: str, file: soundfile.SoundFile, stream: BinaryIO) -> None:
    """Raise InputError if the header claims more data than there are. libsndfile itself does not check this."""
    claim = _CUT_DATA.search(file.extra_info)
    if claim and int(claim[2]) < int(claim[1]) < _UNKNOWN_LENGTH:
        raise InputError(f"{name}: cut: the header claims {claim[1]} bytes of samples, there are {claim[2]}")
    if file.format == "OGG" and _ends_within_page(stream):
        raise InputError(f"{name}: cut: the last page of the Ogg file is not whole")


def _ends_within_page(stream: BinaryIO) -> bool:
    place = stream.tell()
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - _OGG_PAGE))
    tail = stream.read()
    stream.seek(place)  # libsndfile expects it there
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < _OGG_HEADER:
        return True
    segments = page[_OGG_HEADER - 1]
    return len(page) < _OGG_HEADER + segments + sum(page[_OGG_HEADER : _OGG_HEADER + segments])


def _mono(samples: np.ndarray) -> np.ndarray:
    """Average channels, (n, channels) -> (n,)."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    _warn_once(f"audio of {samples.shape[1]} channels is averaged")
    return samples.mean(axis=1)


@functools.cache
def _warn_once(message: str) -> None:
    log.warning("%s (said once)", message)


@dataclass(frozen=True)
class Utterance:
    """An utterance and its audio: a value of wav.scp, and start and end in seconds if it is a segment."""

    id: str
    value: str
    start: float = 0.0
    end: float | None = None


class Utterances:
    """The utterances of a data directory, with or without segments, in its order. `read` and `blocks` return samples.

    Raises:
        InputError: if wav.scp or segments are missing or malformed, a segment's recording is unknown, or wav.scp has
            a command and `pipes` is false.
    """

    def __init__(self, directory: str | Path, sample_rate: int, pipes: bool = True) -> None:
        self._sample_rate = sample_rate
        self._list = list(_listed(Path(directory), pipes))
        self._command, self._recording = "", ExitStack()

    def __len__(self) -> int:
        return len(self._list)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self._list)

    def read(self, utterance: Utterance) -> np.ndarray:
        """Read all samples: (n,) float32.

        Raises:
            InputError: as `blocks` and `whole`.
        """
        return whole(self.blocks(utterance), self._sample_rate, utterance.value)

    def blocks(self, utterance: Utterance) -> Iterator[np.ndarray]:
        """Yield the samples in blocks (n,) float32. A pipe runs once for consecutive segments of its recording.

        Raises:
            InputError: as `open_recording` and `Recording.blocks`.
        """
        value, span = utterance.value, (self._sample_rate, utterance.start, utterance.end)
        if utterance.end is None or not value.endswith("|"):
            with open_recording(value) as recording:
                yield from recording.blocks(*span)
            return
        if self._command != value:
            self._command = ""
            self._recording.close()
            self._piped = self._recording.enter_context(open_recording(value))
            self._command = value
        yield from self._piped.blocks(*span)


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
