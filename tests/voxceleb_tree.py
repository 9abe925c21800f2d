"""Makes small trees with the layout of VoxCeleb1 and 2, MUSAN and RIRS_NOISES, from any speech, for tests."""

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from wespeaker_lite.audio.ffmpeg import find_ffmpeg
from wespeaker_lite.corpora.simulation import SAMPLE_RATE, make_session, make_speaker, simulate_utterance

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
# Where parts lie: as the archives unpack each by itself, in a folder of their names, and all into one.
LAYOUTS = {
    "published": {"vox1 dev": "dev/wav", "vox1 test": "test/wav", "vox2 dev": "dev/aac", "vox2 test": "test/aac"},
    "archives": {
        "vox1 dev": "vox1_dev_wav/wav",
        "vox1 test": "vox1_test_wav/wav",
        "vox2 dev": "vox2_dev_aac/dev/aac",
        "vox2 test": "vox2_test_aac/aac",
    },
    "merged": {"vox1 dev": "wav", "vox1 test": "wav", "vox2 dev": "m4a", "vox2 test": "m4a"},
}
SPEAKERS = {
    "vox1 dev": ("id10001", "id10269", "id11251"),
    "vox1 test": ("id10270", "id10309"),
    "vox2 dev": ("id00012", "id00015", "id09272"),
    "vox2 test": ("id00017",),
}
VIDEOS, UTTERANCES = 2, 2  # of a speaker, of a video

Speech = Callable[[int, int, int], np.ndarray]  # of a speaker, video and utterance, each by number: samples in int16


def simulated(speaker: int, video: int, utterance: int) -> np.ndarray:
    """A second of simulated speech."""
    rng = np.random.default_rng([speaker, video])
    session = make_session(rng)
    return simulate_utterance(make_speaker(1, speaker), session, np.random.default_rng(utterance))[:SAMPLE_RATE]


@dataclass(frozen=True)
class Tree:
    """A generated corpus: its folders, and the utterances of its parts as `id10001/1zcIwhmdeo4/00001`."""

    root: Path
    layout: str = "published"
    vox2_ending: str = ".m4a"
    speakers: Mapping[str, Sequence[str]] = field(default_factory=lambda: SPEAKERS)

    def folder(self, part: str) -> Path:
        """Where the speakers of `vox1 dev` and so on are."""
        return self.root / part[:4] / LAYOUTS[self.layout][part]

    def ending(self, part: str) -> str:
        return ".wav" if part.startswith("vox1") else self.vox2_ending

    def utterances(self, part: str) -> list[str]:
        return [
            f"{s}/{youtube_id(s, v)}/{u:05d}"
            for s in self.speakers[part]
            for v in range(VIDEOS)
            for u in UTTERANCE_NUMBERS
        ]

    def path(self, part: str, utterance: str) -> Path:
        return self.folder(part) / f"{utterance}{self.ending(part)}"


UTTERANCE_NUMBERS = range(1, UTTERANCES + 1)


def youtube_id(speaker: str, video: int) -> str:
    """An id of eleven characters; that of the first video begins with special characters."""
    rng = np.random.default_rng([int(speaker[2:]), video])
    name = "".join(ALPHABET[number] for number in rng.integers(len(ALPHABET), size=11))
    return f"{'-_'[int(speaker[2:]) % 2]}{name[:4]}-{name[5:10]}" if video == 0 else name


def make_tree(tree: Tree, speech: Speech = simulated) -> Tree:
    """Make audio, lists and tables."""
    for number, part in enumerate(tree.speakers):
        for place, utterance in enumerate(tree.utterances(part)):
            video, inside = divmod(place, UTTERANCES)
            samples = speech(100 * number + video // VIDEOS, video % VIDEOS, inside)
            write_audio(tree.path(part, utterance), samples)
    for name, parts in (
        ("veri_test2", ["vox1 test"]),
        ("list_test_all2", ["vox1 dev"]),
        ("list_test_hard2", ["vox1 dev", "vox1 test"]),
    ):
        lines = trial_lines([utterance for part in parts for utterance in tree.utterances(part)])
        (tree.root / "vox1" / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    for corpus, separator in (("vox1", "\t"), ("vox2", " ,")):
        (tree.root / corpus / f"{corpus}_meta.csv").write_text("".join(meta_lines(tree, corpus, separator)))
    return tree


def write_audio(path: Path, samples: np.ndarray) -> None:
    """Write wav or, by ffmpeg, m4a."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".wav":
        soundfile.write(path, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        return
    command = [
        find_ffmpeg(),
        "-v",
        "error",
        "-y",
        "-f",
        "s16le",
        "-ar",
        str(SAMPLE_RATE),
        "-ac",
        "1",
        "-i",
        "-",
        "-c:a",
        "aac",
    ]
    subprocess.run([*command, str(path)], input=samples.tobytes(), check=True)


def trial_lines(utterances: Sequence[str]) -> Iterator[str]:
    """All pairs in the published format: `1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav`."""
    for place, enroll in enumerate(utterances):
        for test in utterances[place + 1 :]:
            yield f"{int(enroll[:7] == test[:7])} {enroll}.wav {test}.wav"


def meta_lines(tree: Tree, corpus: str, separator: str) -> Iterator[str]:
    heading = ["VoxCeleb1 ID", "VGGFace1 ID", "Gender", "Nationality", "Set"]
    if corpus == "vox2":
        heading = ["VoxCeleb2 ID", "VGGFace2 ID", "Gender", "Set"]
    yield separator.join(heading) + "\n"
    for part, speakers in tree.speakers.items():
        for number, speaker in enumerate(speakers):
            nation = ["Ireland"] if corpus == "vox1" else []
            if part.startswith(corpus):
                yield separator.join([speaker, "A.J._Buckley", "mf"[number % 2], *nation, part[5:]]) + "\n"


def make_musan(root: Path) -> Path:
    """Make `musan/{noise,music,speech}/<source>/*.wav`."""
    rng = np.random.default_rng(0)
    for source in ("noise/free-sound", "noise/sound-bible", "music/fma", "speech/librivox", "speech/us-gov"):
        place = f"{source}/{source.replace('/', '-')}-0000"
        write_audio(root / "musan" / f"{place}.wav", rng.integers(-3000, 3000, SAMPLE_RATE, dtype=np.int16))
        (root / "musan" / place).parent.joinpath("ANNOTATIONS").write_text("of some kind\n")
    (root / "musan" / "README").write_text("MUSAN\n")
    return root / "musan"


def make_rirs(root: Path) -> Path:
    """Make `RIRS_NOISES/simulated_rirs/{small,medium,large}room/Room001/*.wav`, rir_list and what lies beside."""
    rng = np.random.default_rng(0)
    rirs = root / "RIRS_NOISES"
    for size in ("small", "medium", "large"):
        folder = rirs / "simulated_rirs" / f"{size}room"
        lines = []
        for number in range(1, 3):
            response = (8000 * rng.standard_normal(4000) * np.exp(-np.arange(4000) / 400)).astype(np.int16)
            name = f"Room001/Room001-{number:05d}.wav"
            write_audio(folder / name, response)
            lines.append(
                f"--rir-id {size}-{number:05d} --room-id {size}-Room001 RIRS_NOISES/simulated_rirs/{size}room/{name}\n"
            )
        (folder / "rir_list").write_text("".join(lines))
    for beside in ("real_rirs_isotropic_noises", "pointsource_noises"):
        write_audio(rirs / beside / "noise-0000.wav", rng.integers(-3000, 3000, SAMPLE_RATE, dtype=np.int16))
    return rirs
