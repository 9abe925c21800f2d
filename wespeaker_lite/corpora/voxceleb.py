"""Make data dirs and the trial lists O, E and H from VoxCeleb1 and 2.

Source: Nagrani et al. 2017, "VoxCeleb: a large-scale speaker identification dataset"; Chung et al. 2018, "VoxCeleb2:
Deep Speaker Recognition". The numbers of utterances and trials are from the project's pages.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from wespeaker_lite.audio.ffmpeg import find_ffmpeg, flac_path, pipe_of
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_lines
from wespeaker_lite.corpora.corpus_set import CorpusSet, write_data_dir
from wespeaker_lite.corpora.download import Source, download
from wespeaker_lite.kaldi.tables import sorted_keys, write_table
from wespeaker_lite.kaldi.trials import Trials, check_known, match_ids, read_trials, write_trials

log = logging.getLogger(__name__)

KNOWN = {  # corpus, part -> speakers, utterances
    ("vox1", "dev"): (1211, 148642),
    ("vox1", "test"): (40, 4874),
    ("vox2", "dev"): (5994, 1092009),
    ("vox2", "test"): (118, 36237),
}
VOX1_TEST = frozenset(f"id{number}" for number in range(10270, 10310))  # the speakers whose names begin with E
VOX1_DEV = frozenset(f"id{number}" for number in range(10001, 11252)) - VOX1_TEST
LISTS = {"O": "veri_test2.txt", "E": "list_test_all2.txt", "H": "list_test_hard2.txt"}  # the cleaned ones
KNOWN_TRIALS = {"O": 37611, "E": 579818, "H": 550894}
TRAIN = {"vox2": ("vox2",), "vox1": ("vox1",), "both": ("vox2", "vox1")}
ENDINGS = (".wav", ".flac", ".m4a", ".aac")  # in order of preference, if an utterance has several files
READ_BY_FFMPEG = (".m4a", ".aac")
BESIDE = {"txt", "mp4", "vid"}  # folders of frames and faces, with the same structure as those of audio
DEPTH = 4  # the most folders between the given one and the speakers
_SPEAKER = re.compile(r"id\d{5}")
_VIDEO = re.compile(r"[\w-]+", re.ASCII)
_UTTERANCE = re.compile(r"\w+", re.ASCII)


@dataclass(frozen=True)
class Options:
    """Options of the corpus: the training set, the trial lists, and how to read m4a."""

    train: str = "vox2"  # a key of TRAIN: the dev part of one or both
    trials: tuple[str, ...] = ("O", "E", "H")
    flac: bool = False  # decode m4a once to FLAC in the data folder, instead of in a pipe of wav.scp
    strict: bool = False  # any difference from the published corpus is an error

    def __post_init__(self) -> None:
        if self.train not in TRAIN:
            raise InputError(f"VOXCELEB_TRAIN is {self.train!r}, expected {', '.join(TRAIN)}")
        if not self.trials or not LISTS.keys() >= set(self.trials):
            raise InputError(f"VOXCELEB_TRIALS is {' '.join(self.trials)!r}, expected some of {' '.join(LISTS)}")


class Video(NamedTuple):
    """A folder of the utterances from one video; or the folder of a speaker, if it has files or is empty."""

    part: str  # dev or test, by the names of the parent folders
    speaker: str
    folder: str  # its absolute path, which ends with the video's id
    files: list[tuple[str, int]]  # name and size in bytes; 0 for a dead link


Walk = Callable[[Path], Iterable[Video]]


# --- Finding ---


def find_tops(folder: Path) -> list[Path]:
    """Find the folders of speakers: `{dev,test}/{wav,aac}`, `vox1_dev_wav/wav`, `wav`, ... or the folder itself.

    Raises:
        InputError: if there is none.
    """
    folder = Path(os.path.realpath(folder))
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    tops = sorted(_tops(folder, DEPTH))
    if not tops:
        raise InputError(
            f"{folder} is not VoxCeleb: there is no folder id00000/ such as in dev/wav, test/wav, dev/aac or wav"
        )
    return tops


def _tops(folder: Path, depth: int) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        folders = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    if any(map(_SPEAKER.fullmatch, folders)):
        yield folder
    elif depth:
        for name in folders:
            if name not in BESIDE:
                yield from _tops(folder / name, depth - 1)


def walk(folder: Path) -> Iterator[Video]:
    """Yield all videos of a corpus. Hidden files are ignored, and links to folders are followed."""
    for top in find_tops(folder):
        words = re.split("[^a-z]+", str(top.relative_to(os.path.realpath(folder))).lower())
        part = "test" if "test" in words else "dev"
        for speaker in (entry for entry in _visible(top) if entry.is_dir()):
            inside = _visible(speaker.path)
            videos = [entry for entry in inside if entry.is_dir()]
            yield from (Video(part, speaker.name, video.path, _files(_visible(video.path))) for video in videos)
            if len(videos) < len(inside) or not inside:
                yield Video(part, speaker.name, speaker.path, _files(entry for entry in inside if entry.is_file()))


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _files(entries: Iterable[os.DirEntry[str]]) -> list[tuple[str, int]]:
    return [(entry.name, entry.stat().st_size if entry.is_file() else 0) for entry in entries]


# --- Reading ---


def read_parts(corpus: str, videos: Iterable[Video], meta: "Meta", differences: list[str]) -> dict[str, CorpusSet]:
    """Read the dev and the test part of `vox1` or `vox2`. Ids are `id10001-1zcIwhmdeo4-00001`.

    Files that are no utterances, are empty, or appear twice are added to `differences`.
    """
    wavs: dict[str, dict[str, str]] = {"dev": {}, "test": {}}
    utt2spk: dict[str, dict[str, str]] = {"dev": {}, "test": {}}
    for video in videos:
        part = _part_of(corpus, video, meta)
        for utterance, path in _utterances(video, differences):
            known = wavs[part].get(utterance)
            if known:
                path, other = sorted((path, known), key=_preference)
                differences.append(
                    f"{corpus} {part}: utterance {utterance} appears twice: {path} is taken, not {other}"
                )
            wavs[part][utterance], utt2spk[part][utterance] = path, video.speaker
    return {part: CorpusSet(wavs[part], utt2spk[part], spk2gender=meta.of(utt2spk[part])) for part in wavs}


def _part_of(corpus: str, video: Video, meta: "Meta") -> str:
    if corpus == "vox1":  # its parts are often unpacked into one folder
        return "test" if video.speaker in VOX1_TEST else "dev"
    return meta.parts.get(video.speaker, video.part)


def _preference(path: str) -> tuple[int, str]:
    return ENDINGS.index(os.path.splitext(path)[1].lower()), path


def _utterances(video: Video, differences: list[str]) -> Iterator[tuple[str, str]]:
    """Yield ids and paths of the utterances of a video."""
    name = os.path.basename(video.folder)
    in_order = _SPEAKER.fullmatch(video.speaker) and _VIDEO.fullmatch(name) and name != video.speaker
    if not video.files:
        differences.append(f"{video.folder}: an empty folder")
    for file, size in video.files:
        stem, ending = os.path.splitext(file)
        if ending.lower() not in ENDINGS:
            continue
        path = f"{video.folder}/{file}"
        if not in_order or not _UTTERANCE.fullmatch(stem):
            differences.append(f"{path}: not as id10001/1zcIwhmdeo4/00001.wav; left out")
        elif not size:
            differences.append(f"{path}: 0 bytes or a dead link; left out")
        else:
            yield f"{video.speaker}-{name}-{stem}", path


class Meta(NamedTuple):
    """The published tables: sex and part of speakers, and their numbers of utterances."""

    genders: dict[str, str]
    parts: dict[str, str]
    utterances: Counter[str]

    def of(self, utt2spk: Mapping[str, str]) -> dict[str, str]:
        """The known sexes of these speakers."""
        return {speaker: self.genders[speaker] for speaker in set(utt2spk.values()) if speaker in self.genders}


def read_meta(corpus: str, folders: Iterable[Path]) -> Meta:
    """Read `vox1_meta.csv` or `vox2_meta.csv`, and for Vox1 `iden_split.txt`, from the first folder that has them.

    Raises:
        InputError: naming file and line, if a line has another format.
    """
    folders = list(folders)
    table, split = _find(f"{corpus}_meta.csv", folders), _find("iden_split.txt", folders)
    rows = list(_meta_rows(table)) if table else []
    utterances = Counter(line.split()[-1].split("/")[0] for line in _lines(split)) if split and corpus == "vox1" else {}
    return Meta(
        {speaker: gender for speaker, gender, _ in rows},
        {speaker: part for speaker, _, part in rows},
        Counter(utterances),
    )


def _meta_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield speaker, sex and part. One of the files separates columns by tabs, the other by commas."""
    for number, line in enumerate(_lines(path), start=1):
        fields = [field.strip() for field in re.split("[\t,]", line)]
        if number == 1 and not _SPEAKER.fullmatch(fields[0]):
            continue
        sex, part = next((f for f in fields if f in ("m", "f")), ""), fields[-1]
        if not _SPEAKER.fullmatch(fields[0]) or not sex or part not in ("dev", "test"):
            raise InputError(f"{path}:{number}: expected id, name, m or f, ..., dev or test, found {line!r}")
        yield fields[0], sex, part


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error}") from error


def _find(name: str, folders: Iterable[Path]) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


# --- Comparing with the published corpus ---


def compare(corpus: str, part: str, found: CorpusSet, meta: Meta, differences: list[str]) -> None:
    """Add the differences from the published corpus: speakers and, if known, their numbers of utterances."""
    counts = Counter(found.utt2spk.values())
    expected = _expected_speakers(corpus, part, meta)
    sizes = zip(("speakers", "utterances"), (len(counts), counts.total()), KNOWN[corpus, part], strict=True)
    before = len(differences)
    differences += [f"{corpus} {part}: {n} {what}, published are {known}" for what, n, known in sizes if n != known]
    for speaker in sorted_keys(expected - counts.keys()):
        differences.append(f"{corpus} {part}: speaker {speaker} is missing")
    for speaker in sorted_keys(counts.keys() - expected) if expected else ():
        differences.append(f"{corpus} {part}: speaker {speaker} is not of this part")
    for speaker in sorted_keys(counts.keys() & meta.utterances.keys()):
        if counts[speaker] != meta.utterances[speaker]:
            differences.append(
                f"{corpus} {part}: speaker {speaker} has {counts[speaker]} utterances, published are "
                f"{meta.utterances[speaker]}"
            )
    verdict = "as published" if len(differences) == before else "not as published"
    log.info("%s %s: %d speakers, %d utterances: %s", corpus, part, len(counts), counts.total(), verdict)


def _expected_speakers(corpus: str, part: str, meta: Meta) -> set[str]:
    """The speakers of a part; empty if unknown. Those of Vox2 are known only from its table."""
    if corpus == "vox1":
        return set(VOX1_TEST if part == "test" else VOX1_DEV)
    return {speaker for speaker, its_part in meta.parts.items() if its_part == part}


# --- The stages ---


def get(corpus: Path, options: Options, meta_url: str) -> None:
    """Check the inputs of stage 1, and download the lists that are in none of the folders.

    `corpus` has vox1 and, for training on it, vox2. It may have lists/, with the lists and tables.

    Raises:
        InputError: if a corpus is missing or has another layout, has m4a and ffmpeg is missing, or a list cannot be
            downloaded.
    """
    for name in _corpora(corpus):
        tops = find_tops(corpus / name)
        log.info("%s: speakers are in %s", name, ", ".join(map(str, tops)))
        if any(_has_m4a(top) for top in tops):
            find_ffmpeg()
    for letter in options.trials:
        if not _find(LISTS[letter], _folders(corpus)):
            download(Source(f"{meta_url}/{LISTS[letter]}"), corpus / "meta" / LISTS[letter])


def _corpora(corpus: Path) -> list[str]:
    if not (corpus / "vox1").is_dir():
        raise InputError("VoxCeleb1 is missing, and all trials need it: name its folder by --vox1-dir")
    return [name for name in ("vox1", "vox2") if (corpus / name).is_dir()]


def _folders(corpus: Path) -> list[Path]:
    """The folders that may have lists and tables, in order of preference."""
    return [corpus / name for name in ("lists", "vox1", "vox1/meta", "vox2", "vox2/meta", "meta")]


def _has_m4a(top: Path) -> bool:
    """Whether the first video has m4a. All have the same format."""
    videos = (video for speaker in _visible(top) if speaker.is_dir() for video in _visible(speaker.path))
    first = next((video for video in videos if video.is_dir()), None)
    return first is not None and any(name.lower().endswith(READ_BY_FFMPEG) for name, _ in _files(_visible(first.path)))


def prepare(corpus: Path, data: Path, options: Options, walk: Walk = walk) -> None:
    """Write `data/{train,test}`, `data/trials/trials_{O,E,H}`, and `data/differences.txt` from the published corpus.

    Raises:
        InputError: if an utterance of a trial is missing, a speaker is in train and in test, a list cannot be read, or,
            with `strict`, there is any difference.
    """
    differences: list[str] = []
    parts = {name: _read(corpus, name, walk, differences) for name in _corpora(corpus)}
    vox1 = parts["vox1"]["dev"].joined(parts["vox1"]["test"])
    lists = {letter: _read_list(letter, corpus, vox1.utt2spk, differences) for letter in options.trials}
    _report(data / "differences.txt", differences, options.strict)
    for trials in lists.values():
        check_known(trials, vox1.utt2spk)
    sets = {"test": vox1.of_utterances({key for trials in lists.values() for key in (*trials.enroll, *trials.test)})}
    train = _training_set({name: part["dev"] for name, part in parts.items()}, options.train)
    if train:
        sets["train"] = train
        _check_apart(train, sets["test"], options.train)
    elif (data / "train").exists():
        raise InputError(f"{data / 'train'} is of an earlier run, which had VoxCeleb2: remove it first")
    _write(data, sets, options.flac)
    for letter, trials in lists.items():
        write_trials(data / "trials" / f"trials_{letter}", trials)
        log.info("trials_%s: %d trials, %d of them targets", letter, len(trials), trials.labels.sum())
    for letter in LISTS.keys() - lists.keys():  # left by an earlier run
        (data / "trials" / f"trials_{letter}").unlink(missing_ok=True)


def _read(corpus: Path, name: str, walk: Walk, differences: list[str]) -> dict[str, CorpusSet]:
    meta = read_meta(name, _folders(corpus))
    parts = read_parts(name, walk(corpus / name), meta, differences)
    for part, found in parts.items():
        if found.wavs or (name, part) != ("vox2", "test"):  # nothing needs the test part of vox2
            compare(name, part, found, meta, differences)
    return parts


def _read_list(letter: str, corpus: Path, keys: Mapping[str, str], differences: list[str]) -> Trials:
    path = _find(LISTS[letter], _folders(corpus))
    if path is None:
        raise InputError(f"{LISTS[letter]} is not in {' or '.join(map(str, _folders(corpus)))}: run stage 0 first")
    trials = read_trials(path)
    if len(trials) != KNOWN_TRIALS[letter]:
        differences.append(f"{path}: {len(trials)} trials, published are {KNOWN_TRIALS[letter]}")
    ids = {name: os.path.splitext(name)[0].replace("/", "-") for name in {*trials.enroll, *trials.test}}
    return match_ids(trials, keys, {name: key for name, key in ids.items() if key in keys})


def _report(path: Path, differences: list[str], strict: bool) -> None:
    write_lines(path, (f"{line}\n" for line in differences or ["all is as published"]))
    if differences and strict:
        count = len(differences)
        raise InputError(f"{differences[0]} ({count} differences, all in {path}); VOXCELEB_STRICT is true")
    for line in differences[:5]:
        log.warning("%s", line)
    if differences:
        log.warning("%d differences from what is published, all in %s", len(differences), path)


def _training_set(parts: Mapping[str, CorpusSet], train: str) -> CorpusSet | None:
    chosen = [parts[name] for name in TRAIN[train] if name in parts]
    if len(chosen) < len(TRAIN[train]):
        if train == "both":
            raise InputError("VOXCELEB_TRAIN is both, but there is no VoxCeleb2: name its folder by --vox2-dir")
        log.warning("no VoxCeleb2, so no training set: only a trained --model can be evaluated (see VOXCELEB_TRAIN)")
        return None
    if not all(part.utt2spk for part in chosen):
        raise InputError(f"no utterance to train on: the dev part of {train} is empty")
    return chosen[0] if len(chosen) == 1 else chosen[0].joined(chosen[1])


def _check_apart(train: CorpusSet, test: CorpusSet, name: str) -> None:
    shared = set(train.utt2spk.values()) & set(test.utt2spk.values())
    if shared:
        hint = ": E and H test on Vox1's dev speakers; take VOXCELEB_TRIALS=O" if name != "vox2" else ""
        raise InputError(f"speaker {min(shared)} is in train and in test ({len(shared)} such){hint}")


def _write(data: Path, sets: Mapping[str, CorpusSet], flac: bool) -> None:
    """Write the data dirs, with m4a as pipes, or, if `flac`, as files in flac/ that stage 1 makes from decode.scp."""
    decoded: dict[str, str] = {}
    for name, part in sets.items():
        to_decode = {key: path for key, path in part.wavs.items() if path.lower().endswith(READ_BY_FFMPEG)}
        if flac:
            values = {key: flac_path(data.absolute() / "flac", key) for key in to_decode}
            decoded |= to_decode
        else:
            ffmpeg = find_ffmpeg() if to_decode else ""
            values = {key: pipe_of(ffmpeg, path) for key, path in to_decode.items()}
        write_data_dir(data / name, replace(part, wavs=part.wavs | values))
    if decoded:
        write_table(data / "decode.scp", decoded)
    else:
        (data / "decode.scp").unlink(missing_ok=True)
