"""Corpora as users have them (trees of audio files, Kaldi data dirs) turned into data dirs and trial lists."""

import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.data_dir import SEGMENT
from wespeaker_lite.kaldi.tables import key_and_value, sorted_keys, spk2utt_of, write_table
from wespeaker_lite.kaldi.trials import (
    Trials,
    check_known,
    make_trials,
    match_ids,
    read_trials,
    write_trials,
)

log = logging.getLogger(__name__)

READABLE = (".wav", ".flac", ".ogg", ".opus", ".mp3")
UNREADABLE = (".m4a", ".aac", ".mp4", ".wma", ".sph", ".amr")  # audio that must not be passed over in silence
SETS = ("train", "test")
MADE_TRIALS = ("trials_O", "trials_H")
_CLIP_NAME = re.compile(r"(\w+)-\S+")


@dataclass(frozen=True)
class CorpusSet:
    """One set of a corpus; all utterance ids begin with the speaker's and a `-` (or `/`)."""

    wavs: dict[
        str, str
    ]  # utterance, or recording where there are segments -> absolute path, or command with | at its end
    utt2spk: dict[str, str]
    segments: dict[str, str] = field(default_factory=dict)  # utterance -> recording, start, end, a space between them
    spk2gender: dict[str, str] = field(default_factory=dict)
    spk2age: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)  # utterance -> session; empty where sessions are not known
    aliases: dict[str, str] = field(default_factory=dict)  # an utterance's id in the corpus -> its id here

    def of_speakers(self, speakers: Collection[str]) -> "CorpusSet":
        """The part of some speakers."""
        return self.of_utterances({utterance for utterance, speaker in self.utt2spk.items() if speaker in speakers})

    def of_utterances(self, utterances: Collection[str]) -> "CorpusSet":
        """The part of some utterances."""
        utt2spk = {utterance: speaker for utterance, speaker in self.utt2spk.items() if utterance in utterances}
        speakers = set(utt2spk.values())
        segments = {utterance: self.segments[utterance] for utterance in utt2spk if self.segments}
        recordings = {_recording(segment) for segment in segments.values()} if segments else utt2spk
        return CorpusSet(
            wavs={recording: self.wavs[recording] for recording in recordings},
            utt2spk=utt2spk,
            segments=segments,
            spk2gender={speaker: sex for speaker, sex in self.spk2gender.items() if speaker in speakers},
            spk2age={speaker: age for speaker, age in self.spk2age.items() if speaker in speakers},
            sessions={utterance: self.sessions[utterance] for utterance in utt2spk if self.sessions},
            aliases={name: utterance for name, utterance in self.aliases.items() if utterance in utt2spk},
        )

    def joined(self, other: "CorpusSet") -> "CorpusSet":
        """Both sets' utterances; what only one of them knows of its speakers and sessions is left out.

        Raises:
            InputError: where a speaker is in both, or one of them has segments.
        """
        shared = set(self.utt2spk.values()) & set(other.utt2spk.values())
        if shared:
            raise InputError(f"speaker {min(shared)!r} is in both sets ({len(shared)} such); give one a prefix")
        if self.segments or other.segments:
            raise InputError("sets with segments cannot be joined; cut their audio into one file per utterance")
        return CorpusSet(
            wavs=self.wavs | other.wavs,
            utt2spk=self.utt2spk | other.utt2spk,
            spk2gender=self.spk2gender | other.spk2gender if self.spk2gender and other.spk2gender else {},
            spk2age=self.spk2age | other.spk2age if self.spk2age and other.spk2age else {},
            sessions=self.sessions | other.sessions if self.sessions and other.sessions else {},
            aliases=self.aliases | other.aliases,
        )


@dataclass(frozen=True)
class Clips:
    """Where further training speakers are, of each of whom one clip is taken."""

    folder: str
    prefix: str = ""  # of their ids, so that none is that of a speaker of the corpus
    speakers: int | None = None  # so many must be there


@dataclass(frozen=True)
class ListOptions:
    """How lists are made where the corpus does not bring them, and what is added to its training set."""

    seed: int = 1
    test_share: float = 0.25  # of the speakers, where the corpus has no train/ and test/
    max_targets: int | None = None  # at most so many target trials, drawn by seed
    clips: Clips | None = None


# --- Reading ---


def read_set(folder: Path) -> CorpusSet:
    """Read a folder as a Kaldi data dir where it has a wav.scp, else as a tree `speaker/[session/]utterance.flac`."""
    return read_kaldi_dir(folder) if (folder / "wav.scp").exists() else read_tree(folder)


def read_tree(folder: Path) -> CorpusSet:
    """Read a tree `speaker/[session/]utterance.{wav,flac,ogg,opus,mp3}`, with spk2gender and spk2age where it has them.

    Ids are `speaker-session-utterance`; spaces become `_`, and so do those characters of a speaker's name that are or
    sort before the `-`.

    Raises:
        InputError: where the tree is deeper or shallower, a file is empty or of an unreadable kind, a name cannot be an
            id, or two files or speakers get the same id.
    """
    wavs: dict[str, str] = {}
    utt2spk: dict[str, str] = {}
    sessions: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, session, path in _tree_files(folder):
        speaker = _safe_speaker(name)
        utterance = "-".join(part.replace(" ", "_") for part in (speaker, session, path.stem) if part)
        if names.setdefault(speaker, name) != name:
            raise InputError(f"{folder}: {names[speaker]!r} and {name!r} both get the id {speaker!r}; rename one")
        if utterance in wavs:
            raise InputError(f"{wavs[utterance]} and {path} both get the id {utterance!r}; rename or remove one")
        wavs[utterance], utt2spk[utterance], sessions[utterance] = str(path), speaker, session
    if not wavs:
        raise InputError(f"{folder}: no speaker/[session/]utterance with one of the endings {' '.join(READABLE)}")
    _check_audio(wavs)
    speakers = set(utt2spk.values())
    return CorpusSet(
        wavs,
        utt2spk,
        spk2gender=_speaker_table(folder / "spk2gender", speakers, renamed=True),
        spk2age=_speaker_table(folder / "spk2age", speakers, renamed=True),
        sessions=sessions if any(sessions.values()) else {},
    )


def _safe_speaker(name: str) -> str:
    """A speaker's name in which all characters sort after `-`, so that utterances sort as their speakers do."""
    return "".join("_" if character <= "-" else character for character in name)


def _tree_files(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Speaker, session (or "") and absolute path of every audio file."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files, speakers = _entries(folder.absolute())
    if files:
        raise InputError(f"{files[0]}: expected {folder}/speaker/[session/]{files[0].name}")
    for speaker in speakers:
        files, sessions = _entries(speaker)
        yield from ((speaker.name, "", path) for path in files)
        for session in sessions:
            files, deeper = _entries(session)
            yield from ((speaker.name, session.name, path) for path in files)
            too_deep = next((path for inner in deeper for path in inner.rglob("*") if _is_audio(path)), None)
            if too_deep:
                raise InputError(
                    f"{too_deep}: deeper than {folder}/speaker/session/utterance; name a folder further in"
                )


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Audio files and folders in a folder, hidden ones left out, in byte order."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: os.fsencode(entry.name)):
            if entry.name.startswith("."):
                continue
            if not entry.name.isprintable():
                raise InputError(f"{os.fsencode(entry.path)!r}: the name cannot be part of an id; rename it")
            if entry.is_dir():
                folders.append(Path(entry.path))
            elif _is_audio(entry.path):
                files.append(Path(entry.path))
    return files, folders


def _is_audio(path: str | Path) -> bool:
    suffix = os.path.splitext(path)[1].lower()
    if suffix in UNREADABLE:
        raise InputError(f"{path}: {suffix} cannot be read; convert it (e.g. to flac), or pipe it in a wav.scp")
    return suffix in READABLE


def _check_audio(wavs: Mapping[str, str]) -> None:
    bad = [path for path in wavs.values() if not path.endswith("|") and not os.path.getsize(path)]
    if bad:
        raise InputError(f"{bad[0]}: 0 bytes ({len(bad)} of {len(wavs)} audio files are empty); replace or remove them")


def read_kaldi_dir(folder: Path) -> CorpusSet:
    """Read a Kaldi data dir: wav.scp and utt2spk; segments, spk2gender and spk2age where it has them.

    Order does not matter and tabs will do. A relative path in wav.scp is looked for in the data dir, then in the folder
    above it, then in the current one. An id without its speaker in front gets it: `000010011` of `0001` becomes
    `0001-000010011`.

    Raises:
        InputError: naming file and line or utterance, for a line without value, a key that stands twice, an utterance
            without speaker or audio, a segment of an unknown recording, audio that is missing or empty.
    """
    wavs, given = _read_any_order(folder / "wav.scp"), _read_any_order(folder / "utt2spk")
    has_segments = (folder / "segments").exists()
    segments = _read_segments(folder / "segments") if has_segments else {}
    audio_of = {utterance: _recording(segment) for utterance, segment in segments.items()} or {key: key for key in wavs}
    _check_same_utterances(folder, audio_of, given, "segments" if has_segments else "wav.scp")
    orphan = next((utterance for utterance, recording in audio_of.items() if recording not in wavs), None)
    if orphan:
        raise InputError(f"{folder}/segments: {orphan!r} is of recording {audio_of[orphan]!r}, which wav.scp has not")
    new_ids = {utterance: _with_speaker(utterance, speaker) for utterance, speaker in given.items()}
    if len(set(new_ids.values())) < len(new_ids):
        raise InputError(f"{folder}/utt2spk: ids are no longer unique with their speaker in front")
    paths = {recording: _resolve(wavs[recording], folder) for recording in audio_of.values()}
    _check_audio(paths)
    speakers = set(given.values())
    return CorpusSet(
        wavs=paths if has_segments else {new_ids[utterance]: path for utterance, path in paths.items()},
        utt2spk={new_ids[utterance]: speaker for utterance, speaker in given.items()},
        segments={new_ids[utterance]: segment for utterance, segment in segments.items()},
        spk2gender=_speaker_table(folder / "spk2gender", speakers),
        spk2age=_speaker_table(folder / "spk2age", speakers),
        aliases={old: new for old, new in new_ids.items() if old != new},
    )


def _read_any_order(path: Path) -> dict[str, str]:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    table: dict[str, str] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            key, value = key_and_value(path, number, line)
            if not value:
                raise InputError(f"{path}:{number}: expected a key and a value, found {line.decode().strip()!r}")
            if key in table:
                raise InputError(f"{path}:{number}: {key!r} stands twice")
            table[key] = value
    if not table:
        raise InputError(f"{path}: the file is empty")
    return table


def _read_segments(path: Path) -> dict[str, str]:
    """Utterance -> recording, start and end, with a space between them."""
    fields = {utterance: SEGMENT.fullmatch(value) for utterance, value in _read_any_order(path).items()}
    bad = next((utterance for utterance, found in fields.items() if not found), None)
    if bad:
        raise InputError(f"{path}: {bad!r} has no recording, start and end in seconds")
    return {utterance: " ".join(found.groups()) for utterance, found in fields.items()}


def _recording(segment: str) -> str:
    return segment.partition(" ")[0]


def _check_same_utterances(folder: Path, audio_of: Mapping[str, str], utt2spk: Mapping[str, str], name: str) -> None:
    for here, there, file in ((audio_of, utt2spk, "utt2spk"), (utt2spk, audio_of, name)):
        missing = [utterance for utterance in here if utterance not in there]
        if missing:
            raise InputError(f"{folder}/{file} lacks {missing[0]!r} ({len(missing)} utterances)")


def _with_speaker(utterance: str, speaker: str) -> str:
    return utterance if utterance.startswith((f"{speaker}-", f"{speaker}/")) else f"{speaker}-{utterance}"


def _resolve(audio: str, folder: Path) -> str:
    if audio.endswith("|"):
        return audio
    for base in (folder, folder.parent, Path()):
        if (base / audio).is_file():
            return str((base / audio).absolute())
    raise InputError(f"{folder}/wav.scp: {audio}: no such file")


def _speaker_table(path: Path, speakers: Collection[str], renamed: bool = False) -> dict[str, str]:
    if not path.exists():
        return {}
    table = _read_any_order(path)
    if renamed:
        table = {_safe_speaker(speaker): value for speaker, value in table.items()}
    return {speaker: value for speaker, value in table.items() if speaker in speakers}


def read_clips(clips: Clips) -> CorpusSet:
    """Read one clip each of the speakers in a folder of any depth, whose files are named as LibriSpeech's are.

    `103-1240-0000.flac` is of speaker 103. Of several the first is taken, in byte order of their names.

    Raises:
        InputError: where there is no folder, no clip or an empty one, a clip's name does not begin with a speaker, or
            there are not as many speakers as expected.
    """
    folder = Path(clips.folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    wavs: dict[str, str] = {}
    utt2spk: dict[str, str] = {}
    met: set[str] = set()
    for path in sorted(audio_below(folder.absolute()), key=lambda path: path.name):
        name = _CLIP_NAME.fullmatch(path.stem)
        if not name:
            raise InputError(f"{path}: expected a name such as SPEAKER-CHAPTER-UTTERANCE{path.suffix}")
        if name[1] not in met:
            met.add(name[1])
            utterance = clips.prefix + path.stem
            wavs[utterance], utt2spk[utterance] = str(path), clips.prefix + name[1]
    if not wavs or (clips.speakers and len(wavs) != clips.speakers):
        expected = f", expected {clips.speakers}" if clips.speakers else ""
        raise InputError(f"{folder}: clips of {len(wavs)} speakers{expected}; is the folder whole?")
    _check_audio(wavs)
    log.info("%s: one clip each of %d further training speakers", folder, len(wavs))
    return CorpusSet(wavs, utt2spk)


def audio_below(folder: Path) -> Iterator[Path]:
    """Yield the audio files in a folder of any depth, hidden ones left out.

    Raises:
        InputError: naming a file of a kind that cannot be read, or whose name cannot be printed.
    """
    files, folders = _entries(folder)
    yield from files
    for inner in folders:
        yield from audio_below(inner)


def read_corpus(folder: str | Path, options: ListOptions) -> tuple[dict[str, CorpusSet], list[Trials]]:
    """Read the sets and the trial lists that a corpus folder holds.

    Where it has a train/ or test/, each that is there is a set; else its speakers are split: those that its trial
    lists name go to test, or, without lists, a share drawn by seed. Lists that name every speaker leave no train.
    Trial lists are the files `trials*` in the folder, or else in its test/; their ids are brought to the form of the
    set's. Clips of further speakers join train.

    Raises:
        InputError: as the readers do; where a trial names an unknown utterance; for too few speakers to split.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = trial_files(folder) or trial_files(folder / "test")
    lists = [read_trials(path) for path in found]
    sets = {name: read_set(folder / name) for name in SETS if (folder / name).is_dir()}
    whole = None if sets else read_set(folder)
    target = whole or sets.get("test")
    if lists and target is None:
        raise InputError(f"{found[0]}: trials are of a test set, but there is no {folder}/test")
    lists = [match_ids(trials, set(target.utt2spk), target.aliases) for trials in lists]
    for trials in lists:
        check_known(trials, target.utt2spk)
    sets = sets or _split(folder, whole, lists, options)
    if options.clips:
        clips = read_clips(options.clips)
        sets["train"] = sets["train"].joined(clips) if "train" in sets else clips
    return sets, lists


def trial_files(folder: Path) -> list[Path]:
    """The trial lists in a folder: files `trials*`, in byte order."""
    return sorted(path for path in folder.glob("trials*") if path.is_file())


def _split(folder: Path, whole: CorpusSet, lists: list[Trials], options: ListOptions) -> dict[str, CorpusSet]:
    speakers = sorted_keys(set(whole.utt2spk.values()))
    if lists:
        test = {whole.utt2spk[utterance] for trials in lists for utterance in (*trials.enroll, *trials.test)}
        if len(test) == len(speakers):
            log.info("%s: the trials name every speaker, so all are tested and there is no training set", folder)
            return {"test": whole}
    else:
        count = max(2, round(options.test_share * len(speakers)))
        test = set(np.random.default_rng(options.seed).permutation(speakers)[:count].tolist())
    if len(speakers) - len(test) < 2:
        raise InputError(f"{folder}: {len(speakers)} speakers are too few to split; put a test/ (and a train/) into it")
    return {"train": whole.of_speakers(set(speakers) - test), "test": whole.of_speakers(test)}


def check_corpus(folder: str | Path, options: ListOptions) -> None:
    """Read all that a corpus folder holds, say what it is, and write nothing.

    Raises:
        InputError: as `read_corpus` does.
    """
    sets, lists = read_corpus(folder, options)
    for name, part in sets.items():
        log.info("%s: %s has %s", folder, name, _size(part))
    log.info(
        "%s: trial lists: %s",
        folder,
        " ".join(Path(trials.path).name for trials in lists) or "none, stage 1 makes them",
    )


# --- Writing ---


def make_lists(corpus: str | Path, data: str | Path, options: ListOptions) -> None:
    """Write `data/{train,test}` as Kaldi data dirs and `data/trials/<name>`, from what is in the folder `corpus`.

    Trial lists of the corpus are used; without any, `trials_O` and, where sex is known, `trials_H` are made by seed.
    """
    data = Path(data)
    sets, lists = read_corpus(corpus, options)
    stale = [name for name in SETS if name not in sets and (data / name).exists()]
    if stale:
        raise InputError(f"{data / stale[0]} is of another corpus: {corpus} has no {stale[0]} set; remove it first")
    _warn_of_overlap(sets)
    named = {Path(trials.path).name: trials for trials in lists}
    if "test" in sets:
        named = named or made_trials(sets["test"], options)
    for name, part in sets.items():
        write_data_dir(data / name, part)
    for name in MADE_TRIALS:
        if name not in named:  # left by an earlier run, of other utterances
            (data / "trials" / name).unlink(missing_ok=True)
    write_lists(data / "trials", named, options.seed)


def write_lists(folder: Path, named: Mapping[str, Trials], seed: int) -> None:
    """Write trial lists by their names, and log where they come from."""
    for name, trials in named.items():
        write_trials(folder / name, trials)
        origin = f"from {trials.path}" if trials.path else f"made by seed {seed}"
        log.info("%s: %d trials, %d of them targets, %s", name, len(trials), trials.labels.sum(), origin)


def write_data_dir(folder: Path, part: CorpusSet) -> None:
    """Write a set as a Kaldi data dir, each file whole or not at all; an optional file that it has not is removed."""
    spk2utt = spk2utt_of(part.utt2spk)
    tables = {
        "wav.scp": part.wavs,
        "segments": part.segments,
        "spk2gender": part.spk2gender,
        "spk2age": part.spk2age,
        "spk2utt": {speaker: " ".join(utterances) for speaker, utterances in spk2utt.items()},
        "utt2spk": part.utt2spk,
    }
    for name, table in tables.items():
        if table:
            write_table(folder / name, table)
        else:
            (folder / name).unlink(missing_ok=True)
    log.info("%s: %s", folder, _size(part))


def _size(part: CorpusSet) -> str:
    return f"{len(part.utt2spk)} utterances of {len(set(part.utt2spk.values()))} speakers"


def made_trials(test: CorpusSet, options: ListOptions) -> dict[str, Trials]:
    """Make a test set's lists by `make_trials`; its targets are across sessions where a speaker has two."""
    speakers_by_session = set(zip(test.sessions.values(), (test.utt2spk[u] for u in test.sessions), strict=True))
    across = len(speakers_by_session) > len(set(test.utt2spk.values()))
    if test.sessions and not across:
        log.warning("no speaker of the test set has two sessions: targets are within a session")
    return make_trials(
        test.utt2spk,
        options.seed,
        spk2gender=test.spk2gender or None,
        spk2age=test.spk2age or None,
        session_of=test.sessions if across else None,
        max_targets=options.max_targets,
    )


def _warn_of_overlap(sets: Mapping[str, CorpusSet]) -> None:
    speakers = [set(part.utt2spk.values()) for part in sets.values()]
    shared = set.intersection(*speakers) if len(speakers) > 1 else set()
    if shared:
        log.warning(
            "%d speakers are in train and in test, such as %r: results will look too good", len(shared), min(shared)
        )
