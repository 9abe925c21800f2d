"""Reading of audio: correct samples, and an error with the file for unreadable audio."""

import errno
import logging
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.limits import little_memory, small_files
from wespeaker_lite.audio import reading as audio
from wespeaker_lite.audio.reading import (
    Utterance,
    Utterances,
    audio_seconds,
    open_recording,
    read_audio,
    write_flac,
)
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.tables import write_table

RATE = 16000
CODECS = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "opus": "OPUS", "mp3": "MPEG_LAYER_III"}


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    """A tone with rising amplitude, so that no two parts of it are equal."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.1 * (0.1 + time) / (0.1 + seconds) * np.sin(2 * np.pi * hertz * time)


def save(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str | None = None) -> str:
    container = {".opus": "OGG", ".ogg": "OGG"}.get(path.suffix)
    soundfile.write(path, samples, rate, format=container, subtype=subtype or CODECS[path.suffix[1:]])
    return str(path)


@pytest.fixture(autouse=True)
def _clear_warnings() -> None:
    audio._warn_once.cache_clear()


@pytest.mark.parametrize("suffix", CODECS)
def test_every_codec_is_read(tmp_path: Path, suffix: str) -> None:
    samples = read_audio(save(tmp_path / f"a.{suffix}", tone(2)), RATE)
    assert samples.dtype == np.float32
    assert samples.shape == (2 * RATE,)
    lossless = suffix in ("wav", "flac")
    inner = slice(None) if lossless else slice(200, -200)
    np.testing.assert_allclose(samples[inner], tone(2)[inner], atol=2**-15 if lossless else 0.03)


@pytest.mark.parametrize("suffix", CODECS)
def test_a_segment_equals_that_part_of_the_whole(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", tone(6))
    whole, part = read_audio(path, RATE), read_audio(path, RATE, 4.5, 5.25)
    assert part.shape == (12000,)
    np.testing.assert_allclose(part, whole[72000:84000], atol=1e-4)


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("size", [1000, 30000])
def test_blocks_equal_what_soundfile_reads_at_once(
    tmp_path: Path, suffix: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / f"a.{suffix}", np.random.default_rng(0).normal(0, 0.1, (6 * RATE, 2)))
    monkeypatch.setattr(audio, "_BLOCK", size)
    with open_recording(path) as recording:
        assert recording.seconds == 6
        blocks = list(recording.blocks(RATE))
        again = np.concatenate(list(recording.blocks(RATE)))
    assert max(map(len, blocks)) == size // 2
    expected = soundfile.read(path, dtype="float32")[0].mean(1)
    np.testing.assert_allclose(np.concatenate(blocks), expected, rtol=0, atol=1e-7 if suffix == "mp3" else 0)
    np.testing.assert_allclose(
        again, expected, atol=0.05 if suffix == "mp3" else 0
    )  # the first mp3 frames depend on earlier ones


def test_a_pipe_is_run_by_bash(tmp_path: Path) -> None:
    path = save(tmp_path / "a b.wav", tone(1))
    np.testing.assert_array_equal(read_audio(f"cat < '{path}' | cat |", RATE), read_audio(path, RATE))


def test_wav_of_unknown_length_from_a_pipe_is_whole(tmp_path: Path) -> None:
    path = Path(save(tmp_path / "a.wav", tone(1)))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"  # as ffmpeg writes it; sox writes 7fffxxxx
    path.write_bytes(data)
    assert len(read_audio(f"cat {path} |", RATE)) == RATE


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("echo no such tool >&2; exit 3 |", "failed with code 3: no such tool"),
        ("false | cat |", "failed with code 1"),
        ("true |", "empty"),
    ],
)
def test_a_failing_pipe_is_named(command: str, fault: str) -> None:
    with pytest.raises(InputError) as caught:
        read_audio(command, RATE)
    assert str(caught.value).startswith(f"{command}: {fault}")


def test_another_rate_is_resampled_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = [
        save(tmp_path / f"{name}.wav", tone(2, rate), rate) for name, rate in (("a", 8000), ("b", 8000), ("c", 44100))
    ]
    with caplog.at_level(logging.WARNING):
        for path in paths:
            samples = read_audio(path, RATE)
            assert samples.shape == (2 * RATE,)
            np.testing.assert_allclose(samples[500:-500], tone(2)[500:-500], atol=2e-3)
    assert [record.message for record in caplog.records] == [
        "8000 Hz resampled to 16000 Hz (said once)",
        "44100 Hz resampled to 16000 Hz (said once)",
    ]


def test_channels_are_averaged_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left, right = tone(1), tone(1, hertz=300)
    path = save(tmp_path / "a.wav", np.stack([left, right], axis=1))
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(read_audio(path, RATE), (left + right) / 2, atol=2**-15)
        read_audio(path, RATE)
    assert [record.message for record in caplog.records] == ["audio of 2 channels is averaged (said once)"]


def test_an_mp3_without_a_length_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(2, 44100), 44100, format="MP3", bitrate_mode="CONSTANT", compression_level=0.5)
    data = path.read_bytes()
    path.write_bytes(data[data.find(data[:2], 4) :])  # the frame with the length
    assert len(read_audio(str(path), 44100)) == pytest.approx(2 * 44100, abs=3000)
    assert "mp3 without a length in its header" in caplog.text


# bad audio


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("share", [0.02, 0.66, 0.99])
def test_truncated_audio_is_an_error(tmp_path: Path, suffix: str, share: float) -> None:
    path = Path(save(tmp_path / f"a.{suffix}", np.random.default_rng(0).normal(0, 0.1, 4 * RATE)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=rf"^{path}: (cut|cannot be decoded, cut or no audio): "):
        read_audio(str(path), RATE)


def test_a_wav_without_its_last_byte_is_truncated(tmp_path: Path) -> None:
    path = Path(save(tmp_path / "a.wav", tone(1)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"cut: the header claims 32000 bytes of samples, there are 31999"):
        read_audio(str(path), RATE)


def test_missing_empty_and_other_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "zero.wav").touch()
    (tmp_path / "text.wav").write_text("this is no audio, but long enough to be looked at by a decoder\n" * 9)
    save(tmp_path / "header.wav", np.zeros(0))
    faults = {
        "none.wav": "No such file",
        "zero.wav": r"empty \(0 bytes\)",
        "text.wav": "cannot be decoded",
        "header.wav": "empty: it has a header, but no samples",
        ".": "Is a directory",
    }
    for name, fault in faults.items():
        with pytest.raises(InputError, match=f"^{tmp_path / name}: {fault}"):
            read_audio(str(tmp_path / name), RATE)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (np.nan, "that are not finite"),
        (np.inf, "that are not finite"),
        (2.0**33, r"up to 8.59e\+09; expected -1 to 1"),
        (-1e30, r"up to 1e\+30; expected -1 to 1"),
    ],
)
def test_audio_with_non_finite_features_is_an_error(tmp_path: Path, value: float, fault: str) -> None:
    samples = tone(1)
    samples[700] = value
    path = save(tmp_path / "a.wav", samples, subtype="FLOAT")
    with pytest.raises(InputError, match=rf"^{path}: the audio holds values {fault}"):
        read_audio(path, RATE)


@pytest.mark.parametrize(("start", "end"), [(2.0, 2.4), (0.5, 2.6), (5.0, 6.0)])
def test_a_segment_outside_the_recording_is_an_error(tmp_path: Path, start: float, end: float) -> None:
    path = save(tmp_path / "a.wav", tone(2))
    with pytest.raises(
        InputError, match=rf"^{path}: the segment {start} to {end} s lies outside of the recording, 2.00 s"
    ):
        read_audio(path, RATE, start, end)


def test_a_segment_may_end_a_little_late(tmp_path: Path) -> None:
    assert len(read_audio(save(tmp_path / "a.wav", tone(2)), RATE, 1.5, 2.3)) == RATE / 2


@pytest.mark.parametrize(("start", "end"), [(0.5, 1e308), (1e308, 1.5e308), (0.5, np.nan), (np.nan, 1.0), (-1e308, 1)])
def test_a_segment_with_invalid_times_is_an_error(tmp_path: Path, start: float, end: float) -> None:
    path = save(tmp_path / "a.wav", tone(2))
    with pytest.raises(InputError, match=rf"^{path}: the segment .* lies outside of the recording, 2.00 s"):
        read_audio(path, RATE, start, end)


# headers with wrong values


def wav_of_header(path: Path, channels: int = 1, rate: int = RATE) -> str:
    """Write a wav of 2520 bytes of 16-bit samples, with these values in its header."""
    data = bytearray(Path(save(path, np.full(1260, 0.1))).read_bytes())
    data[22:24], data[24:28] = channels.to_bytes(2, "little"), rate.to_bytes(4, "little")
    data[28:32], data[32:34] = (2 * rate * channels).to_bytes(4, "little"), (2 * channels).to_bytes(2, "little")
    path.write_bytes(data)
    return str(path)


def flac_of_length(path: Path, frames: int) -> str:
    """Write a second of audio, with this number of samples in the header."""
    data = bytearray(Path(save(path, tone(1))).read_bytes())
    claim = int.from_bytes(data[18:26]) >> 36 << 36 | frames
    data[18:26] = claim.to_bytes(8)
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("rate", [100, 1000, 44099, 384_000])
def test_unusual_rates_need_little_memory(tmp_path: Path, rate: int) -> None:
    path = wav_of_header(tmp_path / "a.wav", rate=rate)
    with little_memory(1 << 28):
        samples = read_audio(path, RATE)
    assert len(samples) == pytest.approx(1260 * RATE / rate, abs=0.5)
    assert np.median(samples) == pytest.approx(0.1, abs=1e-2)


def test_many_channels_need_little_memory(tmp_path: Path) -> None:
    path = wav_of_header(tmp_path / "a.wav", channels=252)
    np.testing.assert_allclose(read_audio(path, RATE), np.full(5, 0.1), atol=2**-15)


def test_impossible_headers_are_one_line(tmp_path: Path) -> None:
    faults = {
        wav_of_header(tmp_path / "many.wav", channels=315): "315 channels by its header; expected up to 256",
        wav_of_header(tmp_path / "fast.wav", rate=384_001): "a sampling rate of 384001 Hz; expected 1 to 384000 Hz",
        flac_of_length(tmp_path / "long.flac", 1 << 35): "597 h by its header; expected up to 24 h",
        flac_of_length(tmp_path / "open.flac", 0): "no length in its header",
        flac_of_length(tmp_path / "cut.flac", 3600 * RATE): "cut: 16000 of 57600000 samples could be read",
        wav_of_header(tmp_path / "slow.wav", rate=1): "",
    }
    with little_memory(1 << 28):
        for path, fault in faults.items():
            if fault:
                with pytest.raises(InputError, match=rf"^{path}: {fault}"):
                    read_audio(path, RATE)
    assert audio_seconds(path) == 1260


def test_a_recording_too_long_for_memory_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.wav", tone(4))
    monkeypatch.setattr(audio, "LONGEST_WHOLE", 3)
    with pytest.raises(InputError, match=rf"^{path}: over .* h, which is too long to be held in memory: split it"):
        read_audio(path, RATE)
    assert len(read_audio(path, RATE, 1.0, 4.0)) == 3 * RATE


def test_a_fifo_is_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.wav")
    with pytest.raises(InputError, match=r"fifo.wav: not a file"):
        read_audio(str(tmp_path / "fifo.wav"), RATE)


def test_long_output_of_a_command_is_spooled_to_a_file_and_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.wav", tone(2))
    monkeypatch.setattr(audio, "_SPOOL", 1000)
    np.testing.assert_array_equal(read_audio(f"cat {path} |", RATE, 0.5, 1.0), read_audio(path, RATE, 0.5, 1.0))
    monkeypatch.setattr(audio, "_LARGEST_OUTPUT", 1 << 22)
    with pytest.raises(InputError, match=r"^yes \|: outputs over 0 GiB"):
        read_audio("yes |", RATE)


def test_a_full_disk_is_not_the_fault_of_the_utterance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(tempfile.SpooledTemporaryFile):
        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Full)
    with pytest.raises(OSError, match=rf"No space left on device: '{tempfile.gettempdir()}, for echo x"):
        read_audio("echo x |", RATE)


def test_flac_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.flac"
    write_flac(path, tone(1), RATE)
    np.testing.assert_allclose(read_audio(str(path), RATE), tone(1), atol=2**-15)
    before = path.read_bytes()
    for size in (0, 1, 100, len(before) - 1):
        with small_files(size), pytest.raises(OSError, match=f"File too large: '{path}'"):
            write_flac(path, tone(1), RATE)
        assert [entry.name for entry in path.parent.iterdir()] == ["a.flac"]
    assert path.read_bytes() == before


# data directories


def test_utterances_of_a_directory_come_in_order(tmp_path: Path) -> None:
    values = {f"a-{number}": save(tmp_path / f"{number}.wav", tone(number)) for number in (1, 2)}
    write_table(tmp_path / "wav.scp", values)
    utterances = Utterances(tmp_path, RATE)
    assert len(utterances) == 2
    assert list(utterances) == [Utterance(key, value) for key, value in values.items()]
    assert [len(utterances.read(utterance)) for utterance in utterances] == [RATE, 2 * RATE]


@pytest.mark.parametrize("piped", [False, True])
def test_segments_are_read_and_a_pipe_runs_once_for_all_its_segments(tmp_path: Path, piped: bool) -> None:
    path = save(tmp_path / "a.wav", tone(3, 8000), 8000)
    shutil.copy(path, tmp_path / "b.wav")
    value = f"echo run >> {tmp_path}/runs; cat {tmp_path}/%s.wav |" if piped else f"{tmp_path}/%s.wav"
    write_table(tmp_path / "wav.scp", {"ra": value % "a", "rb": value % "b"})
    write_table(tmp_path / "segments", {"s-1": "ra 0.5 1.0", "s-2": "ra 2.0 3.2", "t-1": "rb 0.0 1.0"})
    utterances = Utterances(tmp_path, RATE)
    for utterance, (start, end) in zip(utterances, [(0.5, 1.0), (2.0, 3.0), (0.0, 1.0)], strict=True):
        expected = tone(3)[round(start * RATE) : round(end * RATE)]
        np.testing.assert_allclose(utterances.read(utterance)[400:-400], expected[400:-400], atol=2e-3)
    if piped:
        assert (tmp_path / "runs").read_text() == "run\nrun\n"


def test_a_segment_outside_a_piped_recording_is_named(tmp_path: Path) -> None:
    write_table(tmp_path / "wav.scp", {"r": f"cat {save(tmp_path / 'a.wav', tone(1))} |"})
    write_table(tmp_path / "segments", {"s-1": "r 0.5 2.5"})
    utterances = Utterances(tmp_path, RATE)
    with pytest.raises(InputError, match=r"the segment 0.5 to 2.5 s lies outside of the recording, 1.00 s"):
        utterances.read(next(iter(utterances)))


def test_a_segment_of_an_unknown_recording_is_named(tmp_path: Path) -> None:
    write_table(tmp_path / "wav.scp", {"r": "r.wav"})
    write_table(tmp_path / "segments", {"s-1": "other 0.5 2.5"})
    with pytest.raises(InputError, match=r"segments:1: recording 'other' is not in wav.scp"):
        Utterances(tmp_path, RATE)


def test_real_speech_is_read_completely(shared_data: Path) -> None:
    for path in sorted((shared_data / "librispeech_clips").glob("*.opus"))[:5]:
        samples = read_audio(str(path), RATE)
        assert 5 < len(samples) / RATE < 40
        assert 0.001 < np.sqrt(np.mean(samples**2)) < 0.5
