"""Corpora that are Kaldi data directories."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.audio_files import check_audio
from wespeaker_lite.corpora.corpus_set import CorpusSet, recording_of
from wespeaker_lite.kaldi.data_dir import SPK2UNLABELLED
from wespeaker_lite.kaldi.segments import SEGMENT
from wespeaker_lite.kaldi.tables import key_and_value


def read_kaldi_dir(folder: Path) -> CorpusSet:
    """Read a Kaldi data dir: wav.scp and utt2spk, and segments, spk2gender, spk2age and spk2unlabelled if it has them.

    Lines may be in any order, and fields may be separated by tabs. A relative path in wav.scp is searched in the data
    dir, then in the folder above it, then in the current folder. An id that does not begin with its speaker gets the
    speaker as prefix: `000010011` of `0001` becomes `0001-000010011`.

    Raises:
        InputError: naming file and line or utterance, for a line without value, a repeated key, an utterance without
            speaker or audio, a segment of an unknown recording, or missing or empty audio.
    """
    (paths, segments), given = read_recordings(folder), _read_any_order(folder / "utt2spk")
    _check_same_utterances(folder, segments or paths, given, "segments" if segments else "wav.scp")
    new_ids = {utterance: _with_speaker(utterance, speaker) for utterance, speaker in given.items()}
    if len(set(new_ids.values())) < len(new_ids):
        raise InputError(f"{folder}/utt2spk: ids are no longer unique with their speaker in front")
    speakers = set(given.values())
    return CorpusSet(
        wavs=paths if segments else {new_ids[utterance]: path for utterance, path in paths.items()},
        utt2spk={new_ids[utterance]: speaker for utterance, speaker in given.items()},
        segments={new_ids[utterance]: segment for utterance, segment in segments.items()},
        spk2gender=speaker_table(folder / "spk2gender", speakers),
        spk2age=speaker_table(folder / "spk2age", speakers),
        aliases={old: new for old, new in new_ids.items() if old != new},
        unlabelled=frozenset(speaker_table(folder / SPK2UNLABELLED, speakers)),
    )


def read_recordings(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read wav.scp and, if it exists, segments: id -> absolute path or command, and utterance -> `recording start end`.

    With segments, only their recordings are returned.

    Raises:
        InputError: as `read_kaldi_dir`, except for faults of utt2spk.
    """
    wavs = _read_any_order(folder / "wav.scp")
    segments = _read_segments(folder / "segments") if (folder / "segments").exists() else {}
    audio_of = {utterance: recording_of(segment) for utterance, segment in segments.items()}
    orphan = next((utterance for utterance, recording in audio_of.items() if recording not in wavs), None)
    if orphan:
        raise InputError(f"{folder}/segments: {orphan!r} is of recording {audio_of[orphan]!r}, which is not in wav.scp")
    paths = {recording: _resolve(wavs[recording], folder) for recording in (audio_of.values() if segments else wavs)}
    check_audio(paths)
    return paths, segments


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
                raise InputError(f"{path}:{number}: {key!r} appears twice")
            table[key] = value
    if not table:
        raise InputError(f"{path}: the file is empty")
    return table


def _read_segments(path: Path) -> dict[str, str]:
    """Read segments: utterance -> `recording start end`."""
    fields = {utterance: SEGMENT.fullmatch(value) for utterance, value in _read_any_order(path).items()}
    bad = next((utterance for utterance, found in fields.items() if not found), None)
    if bad:
        raise InputError(f"{path}: {bad!r} has no recording, start and end in seconds")
    return {utterance: " ".join(found.groups()) for utterance, found in fields.items()}


def _check_same_utterances(folder: Path, audio_of: Collection[str], utt2spk: Mapping[str, str], name: str) -> None:
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


def speaker_table(path: Path, speakers: Collection[str], rename: Callable[[str], str] = str) -> dict[str, str]:
    """Read a table such as spk2gender, rename its speakers, and keep those in `speakers`. Empty without a file."""
    if not path.exists():
        return {}
    table = {rename(speaker): value for speaker, value in _read_any_order(path).items()}
    return {speaker: value for speaker, value in table.items() if speaker in speakers}
