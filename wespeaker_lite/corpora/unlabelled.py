"""Speech without speaker labels, which trains a student by KD terms."""

import os
from pathlib import Path

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.audio_files import READABLE, audio_below, check_audio
from wespeaker_lite.corpora.corpus_set import CorpusSet
from wespeaker_lite.corpora.kaldi_dirs import read_recordings
from wespeaker_lite.corpora.trees import safe_speaker


def read_unlabelled(folder: Path, prefix: str = "") -> CorpusSet:
    """Read a folder of audio files at any depth, or a Kaldi data dir, whose utt2spk is not read and may be missing.

    Each utterance is its own speaker, with the id `PREFIXfolder_file`. `-`, spaces and all other characters that sort
    before `-` become `_`, so that the ids sort like speakers.

    Raises:
        InputError: if there is no audio, a file is empty, missing or of an unreadable format, or two utterances get the
            same id.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if (folder / "wav.scp").exists():
        wavs, segments = read_recordings(folder)
        keys = {key: key for key in segments or wavs}
    else:
        root = folder.absolute()
        wavs, segments = {os.path.relpath(path, root): str(path) for path in audio_below(root)}, {}
        keys = {name: os.path.splitext(name)[0] for name in wavs}
        if not wavs:
            raise InputError(f"{folder}: no audio file with one of the endings {' '.join(READABLE)}")
        check_audio(wavs)
    ids: dict[str, str] = {}
    for name, key in keys.items():
        utterance = prefix + safe_speaker(key.replace("/", "_"))
        if utterance in ids:
            raise InputError(f"{folder}: {ids[utterance]!r} and {name!r} both get the id {utterance!r}; rename one")
        ids[utterance] = name
    return CorpusSet(
        wavs=wavs if segments else {utterance: wavs[name] for utterance, name in ids.items()},
        utt2spk={utterance: utterance for utterance in ids},
        segments={utterance: segments[name] for utterance, name in ids.items() if segments},
        unlabelled=frozenset(ids),
    )
