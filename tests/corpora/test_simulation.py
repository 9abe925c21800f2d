"""Simulated speakers: reproducible files, and parts that agree with the physics that they model."""

import hashlib
import os
import select
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

import numpy as np
import pytest
import soundfile
from scipy import signal

from tests.limits import small_files
from wespeaker_lite.audio.reading import write_flac
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora import simulation
from wespeaker_lite.corpora.simulation import (
    HOP,
    SAMPLE_RATE,
    Session,
    SimulationOptions,
    Speaker,
    Tracks,
    make_session,
    make_speaker,
    simulate_corpus,
    simulate_utterance,
)

SMALL = SimulationOptions(train_speakers=2, test_speakers=2, sessions=2, train_utterances=2, test_utterances=1)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "corpus"
    simulate_corpus(folder, SMALL)
    return folder


# --- The corpus ---


def test_the_tree_and_the_audio_format(corpus: Path) -> None:
    files = sorted(str(path.relative_to(corpus)) for path in corpus.rglob("*.flac"))
    speakers = {"train": ("sim010000", "sim010001"), "test": ("sim000000", "sim000001")}
    utterances = {"train": ("00001", "00002"), "test": ("00001",)}
    assert files == sorted(
        f"{name}/{speaker}/{session}/{utterance}.flac"
        for name in speakers
        for speaker in speakers[name]
        for session in ("s01", "s02")
        for utterance in utterances[name]
    )
    for file in files:
        info = soundfile.info(corpus / file)
        assert (info.samplerate, info.channels, info.format, info.subtype) == (16000, 1, "FLAC", "PCM_16")
        assert 2.0 - HOP / SAMPLE_RATE <= info.duration <= 5.0
    assert (corpus / "test" / "spk2gender").read_text() == "sim000000 f\nsim000001 m\n"
    others = {path.name for path in corpus.rglob("*") if path.is_file() and path.suffix != ".flac"}
    assert others == {"simulation.json", "spk2gender"}


def test_audio_does_not_depend_on_the_number_of_processes(corpus: Path, tmp_path: Path) -> None:
    simulate_corpus(tmp_path / "corpus", SMALL, jobs=3)
    assert digests(tmp_path / "corpus") == digests(corpus)


def test_a_speaker_is_the_same_in_a_larger_corpus_and_another_with_another_seed(corpus: Path, tmp_path: Path) -> None:
    larger = SimulationOptions(train_speakers=1, test_speakers=3, sessions=2, train_utterances=1, test_utterances=2)
    simulate_corpus(tmp_path / "larger", larger)
    known, grown = digests(corpus), digests(tmp_path / "larger")
    shared = {name for name in known.keys() & grown.keys() if name.endswith(".flac")}
    assert len(shared) == 2 * 2 + 2
    assert all(known[name] == grown[name] for name in shared)
    one = replace(SMALL, train_speakers=1, test_speakers=1, sessions=1, train_utterances=1, seed=2)
    simulate_corpus(tmp_path / "seed", one)
    name = "test/sim000000/s01/00001.flac"
    assert digests(tmp_path / "seed")[name] != known[name]


def test_all_files_differ(corpus: Path) -> None:
    audio = [digest for name, digest in digests(corpus).items() if name.endswith(".flac")]
    assert len(set(audio)) == len(audio)


def test_an_incomplete_corpus_is_completed_and_finished_files_are_kept(tmp_path: Path, corpus: Path) -> None:
    folder = tmp_path / "corpus"
    simulate_corpus(folder, SMALL)
    (folder / "train/sim010000/s01/00002.flac").unlink()
    (folder / "test/sim000001/s02/00001.flac").write_bytes(b"")  # what a power cut can leave
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.flac")}
    simulate_corpus(folder, SMALL)
    assert digests(folder) == digests(corpus)
    touched = {str(p.relative_to(folder)) for p, time in before.items() if p.stat().st_mtime_ns != time}
    assert touched <= {"train/sim010000/s01/00001.flac", "test/sim000001/s02/00001.flac"}


def test_a_complete_corpus_is_not_made_again(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "simulate_utterance", None)
    simulate_corpus(corpus, SMALL)


def test_an_interruption_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", cut)
    with pytest.raises(KeyboardInterrupt):
        write_flac(tmp_path / "a.flac", np.zeros(100, dtype=np.int16), 16000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_is_an_error_and_leaves_no_partial_file(tmp_path: Path, jobs: int) -> None:
    with small_files(20000), pytest.raises(OSError, match=rf"File too large: '{tmp_path}/c/.*\.flac'"):
        simulate_corpus(tmp_path / "c", SMALL, jobs=jobs)
    assert not list((tmp_path / "c").rglob("*.tmp"))
    assert not list((tmp_path / "c").rglob("*.flac"))


@pytest.mark.parametrize("victim", ["the first", "another"])
def test_when_one_process_is_killed_all_end(tmp_path: Path, victim: str) -> None:
    """All processes hold the pipe, so its reader reaches the end only after the last one has ended."""
    read, write = os.pipe()
    command = [sys.executable, "-m", "wespeaker_lite.bin.simulate_corpus", "--out", str(tmp_path / "corpus")]
    run = subprocess.Popen([*command, "--jobs", "2"], pass_fds=[write], stderr=subprocess.PIPE, text=True)
    os.close(write)
    while not list(tmp_path.rglob("*.flac")):
        time.sleep(0.05)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(run.pid if victim == "the first" else int(children[0]), SIGKILL)
    assert select.select([read], [], [], 20)[0]
    os.close(read)
    said = run.stderr.read()
    assert "Traceback" not in said
    assert run.wait() == (-SIGKILL if victim == "the first" else 1)
    assert victim == "the first" or "one of 2 processes was killed" in said


def test_other_options_or_a_foreign_folder_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="corpus of other options"):
        simulate_corpus(corpus, replace(SMALL, sessions=3))
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        simulate_corpus(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("bad", [{"sessions": 0}, {"train_speakers": -1}, {"seed": 0}, {"test_speakers": 20_000}])
def test_invalid_sizes_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        SimulationOptions(**bad)


# --- The voice ---


def steady_tracks(frames: int = 400, f0: float = 120.0, formants: np.ndarray | None = None) -> Tracks:
    zeros = np.zeros(frames)
    targets = np.array([700, 1200, 2500, 3500, 4500]) if formants is None else formants
    tracks = np.tile(targets.astype(float), (frames, 1))
    return Tracks(tracks, np.full(frames, f0), np.ones(frames), zeros, zeros, np.zeros((frames, 2)), zeros)


def steady_speaker(**changes: object) -> Speaker:
    plain = {"jitter": 0.0, "shimmer": 0.0, "breath": 0.0, "tilt": 1500.0, "open_quotient": 0.6, "closing_share": 0.3}
    return replace(make_speaker(1, 1), **{**plain, **changes})


def plain_session(**changes: object) -> Session:
    impulse = np.array([1.0])
    quiet = {"f0_ratio": 1.0, "rate_ratio": 1.0, "tilt_ratio": 1.0, "breath_ratio": 1.0, "hum": 0.0, "snr_db": 60.0}
    return Session(**{**quiet, "impulse_response": impulse, "noise_response": impulse, "level_db": -25.0, **changes})


def closures(is_open: np.ndarray) -> np.ndarray:
    return np.flatnonzero(is_open[:-1] & ~is_open[1:])


def test_glottal_pulses_have_the_period_and_the_open_quotient(rng: np.random.Generator) -> None:
    pulse, is_open = simulation._glottis(steady_tracks(f0=125.0), steady_speaker(open_quotient=0.7), rng)
    periods = np.diff(closures(is_open))
    assert np.mean(periods) == pytest.approx(SAMPLE_RATE / 125.0, abs=0.05)
    assert np.mean(is_open) == pytest.approx(0.7, abs=0.01)
    assert np.all(pulse[~is_open] == 0)
    flow = np.cumsum(pulse)
    assert flow.min() > -0.05 * flow.max()  # air flows out of the lungs only, and the glottis closes in every cycle
    assert np.argmin(pulse[:120]) == pytest.approx(np.flatnonzero(is_open[:120])[-1], abs=1)  # excited at closure


def test_jitter_and_shimmer_depend_on_the_speaker(rng: np.random.Generator) -> None:
    tracks = steady_tracks(frames=4000, f0=100.0)
    pulse, is_open = simulation._glottis(tracks, steady_speaker(jitter=0.02, shimmer=0.08), rng)
    ends = closures(is_open)
    periods = np.diff(ends)
    assert np.std(periods) / np.mean(periods) == pytest.approx(0.02, rel=0.2)
    peaks = np.array([-pulse[max(end - 20, 0) : end + 2].min() for end in ends[1:]])
    assert np.std(peaks) / np.mean(peaks) == pytest.approx(0.08, rel=0.2)


def test_vocal_tract_equals_a_cascade_of_resonators() -> None:
    """Against scipy: the response of a cascade of second-order sections, each with unit gain at 0 Hz."""
    formants = np.array([512.0, 1490.0, 2510.0, 3480.0, 4620.0])
    speaker = steady_speaker()
    tract = simulation._vocal_tract(steady_tracks(2, formants=formants), speaker)[0]
    frequency = np.fft.rfftfreq(simulation.FFT_SIZE, 1 / SAMPLE_RATE)
    expected = np.ones(len(frequency), dtype=complex)
    for centre, bandwidth in zip(formants, speaker.bandwidths, strict=True):
        pole = np.exp((-np.pi * bandwidth + 2j * np.pi * centre) / SAMPLE_RATE)
        denominator = [1, -2 * pole.real, abs(pole) ** 2]
        expected *= signal.freqz([sum(denominator)], denominator, frequency, fs=SAMPLE_RATE)[1]
    np.testing.assert_allclose(tract, expected, rtol=1e-4)
    peaks = frequency[signal.find_peaks(np.abs(tract))[0]]
    np.testing.assert_allclose(peaks, formants, atol=60)


def test_steady_voice_equals_plain_filtering(rng: np.random.Generator) -> None:
    """With a constant tract, overlap-add equals convolution with its impulse response."""
    tracks = steady_tracks(frames=200)
    speaker = steady_speaker(bandwidths=np.array([120.0, 120, 150, 200, 300]))  # rings out within the FFT
    pulse, _ = simulation._glottis(tracks, speaker, np.random.default_rng(0))
    corner = np.exp(-2 * np.pi * speaker.tilt / SAMPLE_RATE)
    expected = signal.lfilter([1 - corner], [1, -corner], pulse)
    for centre, bandwidth in zip(tracks.formants[0], speaker.bandwidths, strict=True):
        pole = np.exp((-np.pi * bandwidth + 2j * np.pi * centre) / SAMPLE_RATE)
        denominator = [1, -2 * pole.real, abs(pole) ** 2]
        expected = signal.lfilter([sum(denominator)], denominator, expected)
    voice = simulation._synthesise(tracks, speaker, plain_session(), np.random.default_rng(0))
    inner = slice(2 * HOP, -2 * HOP)  # the first window has no partner before it
    assert np.std(voice[inner] - expected[inner]) < 0.01 * np.std(expected[inner])


def test_a_fricative_is_noise_around_its_centre(rng: np.random.Generator) -> None:
    frames = 400
    tracks = replace(
        steady_tracks(frames),
        voicing=np.zeros(frames),
        frication=np.ones(frames),
        band=np.tile([5000.0, 600.0], (frames, 1)),
    )
    frequency, power = signal.welch(simulation._synthesise(tracks, steady_speaker(), plain_session(), rng), SAMPLE_RATE)
    mean = np.average(frequency, weights=power)
    spread = np.sqrt(np.average((frequency - mean) ** 2, weights=power))
    assert mean == pytest.approx(5000, abs=60)
    assert spread == pytest.approx(600 / np.sqrt(2), rel=0.15)  # the bell is of amplitude, its square is measured


def test_nasality_puts_a_zero_where_the_speaker_has_it() -> None:
    speaker = steady_speaker(nasal_zero=1600.0)
    oral = simulation._vocal_tract(steady_tracks(2), speaker)[0]
    nasal = simulation._vocal_tract(replace(steady_tracks(2), nasality=np.ones(2)), speaker)[0]
    frequency = np.fft.rfftfreq(simulation.FFT_SIZE, 1 / SAMPLE_RATE)
    middle = (frequency > 800) & (frequency < 3000)
    assert frequency[middle][np.argmin(np.abs(nasal / oral)[middle])] == pytest.approx(1600, abs=40)


def test_performance_moves_smoothly_between_the_speakers_targets(rng: np.random.Generator) -> None:
    speaker = make_speaker(1, 4)
    tracks = simulation._make_tracks(speaker, plain_session(), rng, frames=600)
    assert {len(track) for track in vars(tracks).values()} == {600}
    lowest, highest = speaker.formants.min(axis=0) * 0.9, speaker.formants.max(axis=0) * 1.1
    assert np.all((tracks.formants > lowest) & (tracks.formants < highest))
    assert np.abs(np.diff(tracks.formants[:, 1])).max() < 0.35 * np.ptp(speaker.formants[:, 1])  # no jumps within 5 ms
    assert np.mean(np.log2(tracks.f0 / speaker.f0)) == pytest.approx(0, abs=2 * speaker.intonation)


def test_women_speak_higher_with_shorter_tracts() -> None:
    women, men = ([make_speaker(1, n) for n in range(start, 80, 2)] for start in (0, 1))
    assert {s.sex for s in women} == {"f"}
    assert {s.sex for s in men} == {"m"}
    assert np.median([s.f0 for s in women]) > 1.5 * np.median([s.f0 for s in men])
    ratio = np.mean([s.formants.mean() for s in women]) / np.mean([s.formants.mean() for s in men])
    assert 1.1 < ratio < 1.22


# --- The session ---


def test_room_decays_by_60_db_in_its_reverberation_time() -> None:
    """Schroeder's backward integration: the slope of the remaining energy."""
    for seed in range(5):
        room = simulation._room(np.random.default_rng(seed))
        tail = room[SAMPLE_RATE // 20 :]  # behind the early reflections
        energy = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1])
        time = np.arange(len(tail)) / SAMPLE_RATE
        part = (energy < energy[0] - 5) & (energy > energy[0] - 25)
        slope = np.polyfit(time[part], energy[part], 1)[0]
        assert -60 / slope == pytest.approx(len(room) / SAMPLE_RATE, rel=0.12)


def test_each_session_has_its_own_room_and_channel() -> None:
    responses = [make_session(np.random.default_rng(seed)).impulse_response for seed in range(6)]
    spectra = []
    for response in responses:
        direct = int(np.argmax(np.abs(response)))
        tail = response[direct + SAMPLE_RATE // 20 :]
        assert -40 < 10 * np.log10(np.sum(tail**2) / np.sum(response**2)) < -8  # reverberation behind 50 ms
        power = np.abs(np.fft.rfft(response, 16384)) ** 2
        bands = np.array_split(power[300:4000], 20)  # 300 Hz to 4 kHz, which all channels pass
        spectra.append([10 * np.log10(band.mean() / power[300:4000].mean()) for band in bands])
    assert 1.0 < np.mean(np.std(spectra, axis=0)) < 6.0  # dB between sessions


@pytest.mark.parametrize(("snr", "level"), [(5.0, -30.0), (20.0, -22.0)])
def test_noise_and_level_depend_on_the_session(rng: np.random.Generator, snr: float, level: float) -> None:
    voice = np.sin(2 * np.pi * 1000 * np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE)
    samples = simulation._record(voice, plain_session(snr_db=snr, level_db=level), rng) / 32767
    assert 20 * np.log10(samples.std()) == pytest.approx(level, abs=0.1)
    amplitude = 2 * np.mean(samples * voice)
    rest = samples - amplitude * voice
    assert 20 * np.log10(amplitude / np.sqrt(2) / rest.std()) == pytest.approx(snr, abs=0.3)


def test_loud_sessions_are_clipped_not_wrapped(rng: np.random.Generator) -> None:
    voice = np.repeat([1.0, -1.0, 0.0, 0.0, 0.0], [100, 100, 300, 300, 300])
    samples = simulation._record(voice, plain_session(level_db=-1.0), rng)
    assert samples.dtype == np.int16
    assert samples[50] == 32767
    assert samples[150] == -32767


def measured_f0(samples: np.ndarray) -> float:
    """Median over frames of the strongest lag of the autocorrelation, where it is clear."""
    frames = np.lib.stride_tricks.sliding_window_view(samples / 32768, 800)[::400]
    spectra = np.abs(np.fft.rfft(frames - frames.mean(axis=1, keepdims=True), 2048)) ** 2
    correlation = np.fft.irfft(spectra)[:, :800]
    lags = slice(SAMPLE_RATE // 400, SAMPLE_RATE // 70)
    clear = correlation[:, lags].max(axis=1) > 0.5 * correlation[:, 0]
    return float(np.median(SAMPLE_RATE / (np.argmax(correlation[clear, lags], axis=1) + lags.start)))


def test_a_voice_survives_the_change_of_session() -> None:
    errors = []
    for number in range(8):
        speaker = make_speaker(1, number)
        for seed in (number, number + 100):
            rng = np.random.default_rng(seed)
            errors.append(np.log2(measured_f0(simulate_utterance(speaker, make_session(rng), rng)) / speaker.f0))
    assert np.median(np.abs(errors)) < 0.15  # octaves; speakers of one sex spread over 1


def test_sessions_of_a_speaker_differ_more_than_speakers_in_the_mean_spectrum() -> None:
    """This makes the corpus difficult: the mean log spectrum depends on the equipment, not on the speaker."""
    means, owners, occasions = [], [], []
    for number in range(8):
        for occasion in range(2):
            session = make_session(np.random.default_rng([1, number, occasion]))
            for take in range(2):
                rng = np.random.default_rng([2, number, occasion, take])
                samples = simulate_utterance(make_speaker(1, number), session, rng)
                _, power = signal.welch(samples.astype(float), SAMPLE_RATE, nperseg=512)
                bands = [band.mean() for band in np.array_split(power[3:], 40)]
                means.append(np.log(bands) - np.mean(np.log(bands)))
                owners.append(number)
                occasions.append(occasion)
    vectors = np.array(means) / np.linalg.norm(means, axis=1, keepdims=True)
    scores, owners, occasions = vectors @ vectors.T, np.array(owners), np.array(occasions)
    same = owners[:, None] == owners
    targets = scores[same & (occasions[:, None] != occasions)]
    nontargets = scores[~same]
    thresholds = np.quantile(nontargets, np.linspace(0, 1, 200))
    eer = min(max(np.mean(targets < t), np.mean(nontargets >= t)) for t in thresholds)
    assert eer > 0.2


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)
