"""Simulated speakers: a source-filter model of the voice, in sessions that differ by channel, room, noise and level.

The model follows the acoustic theory of speech production (Fant 1960): a glottal source, a vocal tract of moving
resonances, and noise sources for fricatives and bursts. Speakers differ in anatomy and habits: tract length, formants,
larynx, speaking rate. Sessions differ in equipment, room and the voice of the day.
"""

import json
import logging
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy import fft, signal

from wespeaker_lite.audio.reading import write_flac
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_text
from wespeaker_lite.core.progress import with_progress
from wespeaker_lite.kaldi.tables import write_table

log = logging.getLogger(__name__)

SAMPLE_RATE = 16000
HOP = 80  # samples between two states of the vocal tract: 5 ms
FFT_SIZE = 800  # window of 2 hops and 40 ms of ringing, in which a resonance of 60 Hz bandwidth falls by 65 dB
RECIPE = 1  # to be increased when the same seed gives other audio
OPTIONS_FILE = "simulation.json"
MAX_TEST_SPEAKERS = 10_000

# Each part of a phone: F1 F2 F3 (Hz, adult male), voicing, aspiration, frication (amplitudes), centre and width of the
# frication (Hz), nasality, mean duration (s). Vowel formants are rounded averages of Peterson & Barney (1952), the loci
# and noise bands of consonants rough values after Stevens, Acoustic Phonetics (1998), chapters 7 to 9.
PARTS = {
    "i": (270, 2290, 3010, 1.0, 0.0, 0.0, 0, 0, 0, 0.11),
    "I": (390, 1990, 2550, 1.0, 0.0, 0.0, 0, 0, 0, 0.09),
    "E": (530, 1840, 2480, 1.0, 0.0, 0.0, 0, 0, 0, 0.11),
    "ae": (660, 1720, 2410, 1.0, 0.0, 0.0, 0, 0, 0, 0.14),
    "a": (730, 1090, 2440, 1.0, 0.0, 0.0, 0, 0, 0, 0.13),
    "o": (570, 840, 2410, 1.0, 0.0, 0.0, 0, 0, 0, 0.13),
    "U": (440, 1020, 2240, 1.0, 0.0, 0.0, 0, 0, 0, 0.09),
    "u": (300, 870, 2240, 1.0, 0.0, 0.0, 0, 0, 0, 0.11),
    "A": (640, 1190, 2390, 1.0, 0.0, 0.0, 0, 0, 0, 0.09),
    "er": (490, 1350, 1690, 1.0, 0.0, 0.0, 0, 0, 0, 0.12),
    "m": (270, 1000, 2200, 0.5, 0.0, 0.0, 0, 0, 1, 0.07),
    "n": (270, 1500, 2500, 0.5, 0.0, 0.0, 0, 0, 1, 0.07),
    "l": (350, 1100, 2700, 0.6, 0.0, 0.0, 0, 0, 0, 0.06),
    "r": (350, 1200, 1600, 0.6, 0.0, 0.0, 0, 0, 0, 0.07),
    "w": (300, 700, 2200, 0.6, 0.0, 0.0, 0, 0, 0, 0.06),
    "j": (280, 2200, 3000, 0.6, 0.0, 0.0, 0, 0, 0, 0.06),
    "s": (350, 1700, 2600, 0.0, 0.02, 0.4, 6000, 1300, 0, 0.11),
    "S": (350, 1900, 2500, 0.0, 0.02, 0.5, 3500, 900, 0, 0.11),
    "f": (350, 1100, 2300, 0.0, 0.03, 0.1, 5000, 3500, 0, 0.10),
    "h": (500, 1500, 2500, 0.0, 0.3, 0.0, 0, 0, 0, 0.06),
    "v": (300, 1100, 2300, 0.4, 0.02, 0.06, 5000, 3500, 0, 0.06),
    "z": (300, 1700, 2600, 0.35, 0.02, 0.2, 6000, 1300, 0, 0.08),
    "closure": (200, 1500, 2500, 0.0, 0.0, 0.0, 0, 0, 0, 0.06),
    "voiced closure": (200, 1500, 2500, 0.12, 0.0, 0.0, 0, 0, 0, 0.05),
    "p burst": (400, 900, 2300, 0.0, 0.1, 0.25, 1200, 1200, 0, 0.01),
    "t burst": (400, 1750, 2700, 0.0, 0.1, 0.6, 4500, 1500, 0, 0.012),
    "k burst": (350, 1900, 2300, 0.0, 0.1, 0.45, 2000, 600, 0, 0.02),
    "p breath": (450, 950, 2300, 0.0, 0.3, 0.0, 0, 0, 0, 0.03),
    "t breath": (450, 1700, 2600, 0.0, 0.3, 0.05, 4500, 1500, 0, 0.035),
    "k breath": (450, 1800, 2300, 0.0, 0.3, 0.0, 0, 0, 0, 0.04),
    "pause": (500, 1500, 2500, 0.0, 0.0, 0.0, 0, 0, 0, 0.18),
}
PART_TABLE = np.array(list(PARTS.values()))
PART_NUMBER = {name: number for number, name in enumerate(PARTS)}
VOWELS = ("i", "I", "E", "ae", "a", "o", "U", "u", "A", "er")
CONSONANTS = (
    *(("m",), ("n",), ("l",), ("r",), ("w",), ("j",), ("s",), ("S",), ("f",), ("h",), ("v",), ("z",)),
    *(("closure", "p burst", "p breath"), ("closure", "t burst", "t breath"), ("closure", "k burst", "k breath")),
    *(("voiced closure", "p burst"), ("voiced closure", "t burst"), ("voiced closure", "k burst")),
)


@dataclass(frozen=True)
class SimulationOptions:
    """Size and seed of a simulated corpus. A speaker does not depend on the size."""

    train_speakers: int = 60
    test_speakers: int = 24
    sessions: int = 3
    train_utterances: int = 5
    test_utterances: int = 4
    seed: int = 1

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 1 or self.test_speakers > MAX_TEST_SPEAKERS:
            raise InputError(
                f"{self}: all sizes and the seed must be at least 1, test speakers at most {MAX_TEST_SPEAKERS}"
            )


@dataclass(frozen=True)
class Speaker:
    """Anatomy and habits of one simulated speaker."""

    sex: str
    f0: float  # Hz
    intonation: float  # standard deviation of the f0 contour, octaves
    jitter: float  # relative deviation of a period
    shimmer: float  # relative deviation of a pulse's amplitude
    open_quotient: float  # share of the period
    closing_share: float  # of the open phase
    tilt: float  # corner of the source's low-pass, Hz
    breath: float  # aspiration noise relative to voicing
    rate: float  # speaking rate relative to the mean durations
    formants: np.ndarray  # (parts, 5) targets, Hz
    bandwidths: np.ndarray  # (5,), Hz
    hiss: float  # scale of the frequencies of frication
    nasal_zero: float  # Hz
    nasal_pole: float  # Hz


@dataclass(frozen=True)
class Session:
    """One recording occasion: changes of the speaker's voice, room, channel, noise and level."""

    f0_ratio: float
    rate_ratio: float
    tilt_ratio: float
    breath_ratio: float
    impulse_response: np.ndarray  # of room and channel together
    noise_response: np.ndarray  # filter that colours white noise
    hum: float  # amplitude of mains hum in the noise
    snr_db: float
    level_db: float


@dataclass(frozen=True)
class Tracks:
    """The parameters of synthesis, by frame (5 ms)."""

    formants: np.ndarray  # (frames, 5), Hz
    f0: np.ndarray  # (frames,), Hz
    voicing: np.ndarray
    aspiration: np.ndarray
    frication: np.ndarray
    band: np.ndarray  # (frames, 2): centre and width of the frication, Hz
    nasality: np.ndarray


def make_speaker(seed: int, number: int) -> Speaker:
    """Draw speaker `number`. Even numbers are women, odd ones are men.

    Means of f0 and of tract length are rough values after Peterson & Barney (1952). Open quotient, tilt and breath vary
    as in Klatt & Klatt (1990). Formants differ between speakers by tract length, by formant, and by phone.
    """
    rng = np.random.default_rng([seed, 1, number])
    sex = "fm"[number % 2]
    tract = (1.16 if sex == "f" else 1.0) * np.exp(0.06 * rng.standard_normal())
    targets = np.column_stack([PART_TABLE[:, :3], np.full(len(PARTS), 3500.0), np.full(len(PARTS), 4500.0)])
    cavities = np.exp(np.array([0.1, 0.1, 0.11, 0.12, 0.12]) * rng.standard_normal(5))
    habits = np.exp(0.04 * rng.standard_normal(targets.shape))
    return Speaker(
        sex=sex,
        f0=(200 if sex == "f" else 115) * 2 ** (0.25 * rng.standard_normal()),
        intonation=rng.uniform(0.06, 0.25),
        jitter=rng.uniform(0.002, 0.02),
        shimmer=rng.uniform(0.02, 0.10),
        open_quotient=rng.uniform(0.45, 0.85),
        closing_share=rng.uniform(0.2, 0.5),
        tilt=700 * 2 ** rng.uniform(0, 3),
        breath=10 ** rng.uniform(-2.2, -0.8),
        rate=rng.uniform(0.8, 1.3),
        formants=targets * tract * cavities * habits,
        bandwidths=np.array([70, 90, 130, 220, 300]) * np.exp(0.35 * rng.standard_normal(5)),
        hiss=np.exp(0.1 * rng.standard_normal()),
        nasal_zero=1000 * np.exp(0.25 * rng.standard_normal()),
        nasal_pole=270 * np.exp(0.12 * rng.standard_normal()),
    )


def make_session(rng: np.random.Generator) -> Session:
    """Draw a session: changes of the voice, room, channel, noise and level."""
    room = _room(rng)
    channel = _channel(rng)
    return Session(
        f0_ratio=2 ** (0.05 * rng.standard_normal()),
        rate_ratio=np.exp(0.1 * rng.standard_normal()),
        tilt_ratio=2 ** (0.25 * rng.standard_normal()),
        breath_ratio=2 ** (0.3 * rng.standard_normal()),
        impulse_response=signal.fftconvolve(room, channel),
        noise_response=_smooth_filter(rng.uniform(-9, 0), 6 * rng.standard_normal(8)),
        hum=rng.choice([0.0, 0.5, 1.5]),
        snr_db=rng.uniform(20, 40),
        level_db=rng.uniform(-35, -18),
    )


def _room(rng: np.random.Generator) -> np.ndarray:
    """Impulse response of a room: the direct path, a few early reflections, and noise that decays by 60 dB in RT60."""
    rt60 = rng.uniform(0.15, 0.45)
    time = np.arange(int(rt60 * SAMPLE_RATE)) / SAMPLE_RATE
    decay = 10 ** (-3 * time / rt60)
    late = rng.standard_normal(len(time)) * decay * (time > 0.02)
    early = np.zeros(len(time))
    early[rng.integers(30, 640, size=8)] = rng.uniform(-0.4, 0.4, size=8)
    response = early * decay + late * np.sqrt(10 ** (-rng.uniform(10, 22) / 10) / np.sum(late**2))
    response[0] = 1.0
    return response


def _channel(rng: np.random.Generator) -> np.ndarray:
    """Impulse response of microphone and line: band limits, a tilt, and an uneven response."""
    low, high = rng.uniform(50, 250), rng.uniform(4000, 7900)
    frequency = np.maximum(fft.rfftfreq(512, 1 / SAMPLE_RATE), 1.0)
    limits = -10 * np.log10(1 + (low / frequency) ** 4) - 10 * np.log10(1 + (frequency / high) ** 8)
    return _smooth_filter(rng.uniform(-2.5, 2.5), 2.5 * rng.standard_normal(8), limits)


def _smooth_filter(tilt: float, knots: np.ndarray, more: np.ndarray | float = 0.0) -> np.ndarray:
    """FIR filter (512 taps, linear phase): a tilt (dB per octave, 0 at 1 kHz) and knots (dB) at equal mel distances."""
    frequency = np.maximum(fft.rfftfreq(512, 1 / SAMPLE_RATE), 50.0)
    mel = np.log1p(frequency / 700)
    decibels = tilt * np.log2(frequency / 1000) + np.interp(mel, np.linspace(0, mel[-1], len(knots)), knots) + more
    response = np.roll(fft.irfft(10 ** (decibels / 20)), 256) * signal.windows.hann(512, sym=False)
    return response / np.sqrt(np.sum(response**2))


def simulate_utterance(speaker: Speaker, session: Session, rng: np.random.Generator) -> np.ndarray:
    """Synthesise a random phone sequence of 2 to 5 s and simulate its recording.

    Returns:
        int16 samples at 16 kHz, (samples,).
    """
    seconds = rng.uniform(2.0, 5.0)
    tracks = _make_tracks(speaker, session, rng, frames=int(seconds * SAMPLE_RATE / HOP))
    return _record(_synthesise(tracks, speaker, session, rng), session, rng)


def _random_parts(rng: np.random.Generator, count: int) -> list[int]:
    """Draw words of syllables (consonant, vowel, sometimes a final consonant) and pauses: at least `count` parts."""
    parts: list[str] = []
    while len(parts) < count:
        for _ in range(rng.integers(1, 4)):
            parts += CONSONANTS[rng.integers(len(CONSONANTS))]
            parts.append(VOWELS[rng.integers(len(VOWELS))])
            if rng.random() < 0.3:
                parts += CONSONANTS[rng.integers(len(CONSONANTS))]
        if rng.random() < 0.15:
            parts.append("pause")
    return [PART_NUMBER[part] for part in parts]


def _make_tracks(speaker: Speaker, session: Session, rng: np.random.Generator, frames: int) -> Tracks:
    """Turn a random phone sequence into tracks. Smoothing keeps them from reaching their targets (coarticulation)."""
    parts = np.array(_random_parts(rng, count=frames // 4))
    seconds = PART_TABLE[parts, 9] * np.exp(0.2 * rng.standard_normal(len(parts))) / (speaker.rate * session.rate_ratio)
    repeats = np.maximum(np.rint(seconds * SAMPLE_RATE / HOP).astype(int), 2)
    order = np.repeat(np.arange(len(parts)), repeats)[:frames]
    targets = speaker.formants[parts] * np.exp(0.025 * rng.standard_normal((len(parts), 5)))
    values = PART_TABLE[parts[order]]
    accents = np.exp(0.25 * rng.standard_normal(len(parts)))[order]
    declination = np.linspace(0.1, -0.1, frames)
    contour = _smooth(rng.standard_normal(len(parts))[order], 41) * 2 * speaker.intonation
    return Tracks(
        formants=_smooth(targets[order], 13),
        f0=speaker.f0 * session.f0_ratio * 2 ** (contour + declination),
        voicing=_smooth(values[:, 3] * accents, 7),
        aspiration=_smooth(values[:, 4], 5),
        frication=_smooth(values[:, 5], 3),
        band=values[:, 6:8] * speaker.hiss,
        nasality=_smooth(values[:, 8], 5),
    )


def _smooth(track: np.ndarray, width: int) -> np.ndarray:
    """Weighted moving average over frames (Hann, odd `width`). The first and last values are repeated as padding."""
    window = np.hanning(width + 2)[1:-1]
    half = width // 2
    padded = np.concatenate([np.repeat(track[:1], half, axis=0), track, np.repeat(track[-1:], half, axis=0)])
    return np.apply_along_axis(np.convolve, 0, padded, window / window.sum(), "valid")


def _glottis(tracks: Tracks, speaker: Speaker, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The derivative of the glottal flow with jitter and shimmer, and whether the glottis is open; both (samples,).

    The pulse is the trigonometric one of Rosenberg (1971). Its derivative models flow and lip radiation together.
    """
    f0 = np.interp(np.arange(len(tracks.f0) * HOP) / HOP, np.arange(len(tracks.f0)), tracks.f0)
    cycle = np.cumsum(f0 / SAMPLE_RATE).astype(int)
    deviation = rng.standard_normal((2, cycle[-1] + 2))
    phase = np.cumsum(f0 * (1 + speaker.jitter * deviation[0, cycle]) / SAMPLE_RATE)
    cycle, share = np.minimum(phase.astype(int), cycle[-1] + 1), phase % 1
    closing = speaker.open_quotient * speaker.closing_share
    opening = speaker.open_quotient - closing
    rise = np.sin(np.pi * share / opening) / opening / 2
    fall = -np.sin(np.pi / 2 * (share - opening) / closing) / closing / 2
    pulse = np.where(share < opening, rise, np.where(share < speaker.open_quotient, fall, 0.0))
    return pulse * (1 + speaker.shimmer * deviation[1, cycle]), share < speaker.open_quotient


def _synthesise(tracks: Tracks, speaker: Speaker, session: Session, rng: np.random.Generator) -> np.ndarray:
    """Filter the sources by the vocal tract, frame by frame, and overlap-add the frames."""
    pulse, is_open = _glottis(tracks, speaker, rng)
    noise = rng.standard_normal((2, len(pulse)))
    turbulence = noise[0] * (0.3 + 0.7 * is_open)  # breath is strongest while the glottis is open
    voicing, aspiration, frication = (np.repeat(x, HOP) for x in (tracks.voicing, tracks.aspiration, tracks.frication))
    breath = speaker.breath * session.breath_ratio
    corner = np.exp(-2 * np.pi * speaker.tilt * session.tilt_ratio / SAMPLE_RATE)
    voice = signal.lfilter([1 - corner], [1, -corner], voicing * (pulse + 3 * breath * turbulence))
    spectra = _frames(voice + 0.3 * aspiration * turbulence) * _vocal_tract(tracks, speaker)
    hissing = np.flatnonzero(tracks.frication > 0)
    spectra[hissing] += _frames(frication * noise[1], hissing) * _hiss_band(tracks.band[hissing])
    return _overlap_add(spectra)


def _frames(source: np.ndarray, which: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Spectra (frames, bins) of Hann windows of two hops. The sum of the windows is the source."""
    padded = np.concatenate([source, np.zeros(HOP)]).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * HOP)[::HOP][which]
    return fft.rfft(windows * signal.windows.hann(2 * HOP, sym=False).astype(np.float32), FFT_SIZE)


def _vocal_tract(tracks: Tracks, speaker: Speaker) -> np.ndarray:
    """Transfer function (frames, bins) of a cascade of five resonances; nasals add a pole and a zero (Fant 1960)."""
    poles = _sections(tracks.formants, speaker.bandwidths)
    tract = (poles.sum(axis=1, keepdims=True) / fft.rfft(poles, FFT_SIZE)).astype(np.complex64)
    zero = fft.rfft(_sections(np.array([[speaker.nasal_zero]]), np.array([120.0])), FFT_SIZE)
    pole = fft.rfft(_sections(np.array([[speaker.nasal_pole]]), np.array([90.0])), FFT_SIZE)
    nose = zero / zero[:, :1] / (pole / pole[:, :1])
    nasal = np.flatnonzero(tracks.nasality > 0)
    tract[nasal] *= 1 + tracks.nasality[nasal, None] * (nose - 1)
    return tract


def _sections(frequencies: np.ndarray, bandwidths: np.ndarray) -> np.ndarray:
    """Coefficients (frames, 2n + 1) of the product of n second-order resonance polynomials (frames, n)."""
    radius = np.exp(-np.pi * bandwidths / SAMPLE_RATE)
    angle = 2 * np.pi * np.minimum(frequencies, 0.48 * SAMPLE_RATE) / SAMPLE_RATE
    product = np.ones((len(frequencies), 1))
    for first, second in zip((-2 * radius * np.cos(angle)).T, radius**2, strict=True):
        longer = np.pad(product, ((0, 0), (0, 2)))
        longer[:, 1:-1] += product * first[:, None]
        longer[:, 2:] += product * second
        product = longer
    return product


def _hiss_band(band: np.ndarray) -> np.ndarray:
    """Magnitudes (frames, bins) of frication noise: a Gaussian around its centre frequency."""
    frequency = fft.rfftfreq(FFT_SIZE, 1 / SAMPLE_RATE)
    width = np.maximum(band[:, 1:], 100.0)
    return np.exp(-0.5 * ((frequency - band[:, :1]) / width) ** 2)


def _overlap_add(spectra: np.ndarray) -> np.ndarray:
    """Sum the responses of frames, one hop apart."""
    responses = fft.irfft(spectra, FFT_SIZE)
    hops, length = FFT_SIZE // HOP, len(responses) * HOP
    output = np.zeros(length + FFT_SIZE)
    for hop in range(hops):
        output[hop * HOP : hop * HOP + length] += responses[:, hop * HOP : (hop + 1) * HOP].ravel()
    return output[:length]


def _record(voice: np.ndarray, session: Session, rng: np.random.Generator) -> np.ndarray:
    """Filter the voice by room and channel, add noise at the session's SNR, set the level, round to 16 bits."""
    speech = signal.fftconvolve(voice, session.impulse_response)[: len(voice)]
    noise = signal.fftconvolve(rng.standard_normal(len(voice)), session.noise_response, mode="same")
    if session.hum:
        phase = 2 * np.pi * 50 * np.arange(len(voice)) / SAMPLE_RATE
        noise += session.hum * noise.std() * sum(np.sin(k * phase + k) / k for k in (1, 2, 3, 5))
    noise *= speech.std() / noise.std() * 10 ** (-session.snr_db / 20)
    mixture = speech + noise
    mixture *= 10 ** (session.level_db / 20) / mixture.std()
    return np.rint(32767 * np.clip(mixture, -1, 1)).astype(np.int16)


def simulate_corpus(out: str | Path, options: SimulationOptions, jobs: int = 1) -> None:
    """Make `out/{train,test}/speaker/session/utterance.flac` and `out/{train,test}/spk2gender`.

    Existing files are kept, so that an interrupted run is completed by the next. The audio does not depend on `jobs`,
    and a speaker does not depend on the number of speakers.

    Raises:
        InputError: if `out` has other files or a corpus with other options, or if one of several processes is killed.
    """
    out = Path(out)
    _claim(out, options)
    tasks = [task for task in _tasks(out, options) if not task.is_done()]
    log.info("%s: %d sessions to be made", out, len(tasks))
    run = partial(_make_session_files, seed=options.seed)
    several = jobs > 1 and len(tasks) > 1
    with ProcessPoolExecutor(jobs, initializer=_end_with_parent) if several else nullcontext() as pool:
        done = pool.map(run, tasks, chunksize=4) if pool else map(run, tasks)
        try:
            for _ in with_progress(done, len(tasks), "sessions"):
                pass
        except BrokenProcessPool:
            raise InputError(f"{out}: one of {jobs} processes was killed (out of memory?); run it again") from None
    for name, numbers in _speaker_numbers(options).items():
        sexes = {_speaker_name(number): make_speaker(options.seed, number).sex for number in numbers}
        write_table(out / name / "spk2gender", sexes)
    log.info("%s: complete", out)


def _end_with_parent() -> None:
    """End this process if its parent is killed. Otherwise it would wait for work forever and keep its locks."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@dataclass(frozen=True)
class _Task:
    """One session of one speaker. It is one task, so that its room is computed once."""

    speaker: int
    session: int
    utterances: int
    folder: Path

    def is_done(self) -> bool:
        return all(path.exists() and path.stat().st_size for path in self.paths())

    def paths(self) -> list[Path]:
        return [self.folder / f"{number:05d}.flac" for number in range(1, self.utterances + 1)]


def _claim(out: Path, options: SimulationOptions) -> None:
    """Check that `out` is new or has a corpus with the same options, and write the options to a file."""
    mark = out / OPTIONS_FILE
    record = json.dumps({"recipe": RECIPE, **asdict(options)}, indent=1) + "\n"
    if mark.exists():
        if mark.read_text(encoding="utf-8") != record:
            raise InputError(f"{out} holds a corpus of other options (see {mark}); remove it, or name another folder")
    elif out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty and holds no simulated corpus; name another folder")
    else:
        write_text(mark, record)


def _speaker_numbers(options: SimulationOptions) -> dict[str, range]:
    """The numbers of speakers in each set. The ranges are separate, so that a larger set does not change the other."""
    return {
        "test": range(options.test_speakers),
        "train": range(MAX_TEST_SPEAKERS, MAX_TEST_SPEAKERS + options.train_speakers),
    }


def _speaker_name(number: int) -> str:
    return f"sim{number:06d}"


def _tasks(out: Path, options: SimulationOptions) -> list[_Task]:
    utterances = {"train": options.train_utterances, "test": options.test_utterances}
    return [
        _Task(number, session, utterances[name], out / name / _speaker_name(number) / f"s{session:02d}")
        for name, numbers in _speaker_numbers(options).items()
        for number in numbers
        for session in range(1, options.sessions + 1)
    ]


def _make_session_files(task: _Task, seed: int) -> None:
    speaker = make_speaker(seed, task.speaker)
    session = make_session(np.random.default_rng([seed, 2, task.speaker, task.session]))
    for number, path in enumerate(task.paths(), start=1):
        rng = np.random.default_rng([seed, 3, task.speaker, task.session, number])
        write_flac(path, simulate_utterance(speaker, session, rng), SAMPLE_RATE)
