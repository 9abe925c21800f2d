"""Users' own corpora: trees of audio files, `speaker/[session/]utterance.*`."""

from collections.abc import Iterator
from pathlib import Path

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.audio_files import READABLE, audio_entries, check_audio, is_audio
from wespeaker_lite.corpora.corpus_set import CorpusSet
from wespeaker_lite.corpora.kaldi_dirs import speaker_table


def read_tree(folder: Path) -> CorpusSet:
    """Read a tree `speaker/[session/]utterance.{wav,flac,ogg,opus,mp3}`, with spk2gender and spk2age if it has them.

    Ids are `speaker-session-utterance`. Spaces become `_`, and in the name of a speaker also `-` and all characters
    that sort before it.

    Raises:
        InputError: if the tree is deeper or shallower, a file is empty or of an unreadable format, a name cannot be an
            id, or two files or speakers get the same id.
    """
    wavs: dict[str, str] = {}
    utt2spk: dict[str, str] = {}
    sessions: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, session, path in _tree_files(folder):
        speaker = safe_speaker(name)
        utterance = "-".join(part.replace(" ", "_") for part in (speaker, session, path.stem) if part)
        if names.setdefault(speaker, name) != name:
            raise InputError(f"{folder}: {names[speaker]!r} and {name!r} both get the id {speaker!r}; rename one")
        if utterance in wavs:
            raise InputError(f"{wavs[utterance]} and {path} both get the id {utterance!r}; rename or remove one")
        wavs[utterance], utt2spk[utterance], sessions[utterance] = str(path), speaker, session
    if not wavs:
        raise InputError(f"{folder}: no speaker/[session/]utterance with one of the endings {' '.join(READABLE)}")
    check_audio(wavs)
    speakers = set(utt2spk.values())
    return CorpusSet(
        wavs,
        utt2spk,
        spk2gender=speaker_table(folder / "spk2gender", speakers, safe_speaker),
        spk2age=speaker_table(folder / "spk2age", speakers, safe_speaker),
        sessions=sessions if any(sessions.values()) else {},
    )


def safe_speaker(name: str) -> str:
    """Replace `-` and all characters that sort before it, so that utterances sort in the order of their speakers."""
    return "".join("_" if character <= "-" else character for character in name)


def _tree_files(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield speaker, session (or "") and absolute path of every audio file."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files, speakers = audio_entries(folder.absolute())
    if files:
        raise InputError(f"{files[0]}: expected {folder}/speaker/[session/]{files[0].name}")
    for speaker in speakers:
        files, sessions = audio_entries(speaker)
        yield from ((speaker.name, "", path) for path in files)
        for session in sessions:
            files, deeper = audio_entries(session)
            yield from ((speaker.name, session.name, path) for path in files)
            too_deep = next((path for inner in deeper for path in inner.rglob("*") if is_audio(path)), None)
            if too_deep:
                raise InputError(
                    f"{too_deep}: deeper than {folder}/speaker/session/utterance; name a folder further in"
                )
