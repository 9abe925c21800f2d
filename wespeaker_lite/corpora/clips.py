"""Additional training speakers with one clip each."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.audio_files import audio_below, check_audio
from wespeaker_lite.corpora.corpus_set import CorpusSet

log = logging.getLogger(__name__)

_CLIP_NAME = re.compile(r"(\w+)-\S+")


@dataclass(frozen=True)
class Clips:
    """A folder of additional training speakers with one clip each."""

    folder: str
    prefix: str = ""  # of their ids, which must differ from those of the corpus
    speakers: int | None = None  # the expected number


def read_clips(clips: Clips) -> CorpusSet:
    """Read one clip per speaker from a folder and its subfolders, with file names as in LibriSpeech.

    `103-1240-0000.flac` is of speaker 103. The first clip of a speaker is used, in byte order of the file names.

    Raises:
        InputError: if there is no folder, no clip or an empty one, a clip's name does not begin with a speaker, or the
            number of speakers is not the expected one.
    """
    folder = Path(clips.folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    wavs: dict[str, str] = {}
    utt2spk: dict[str, str] = {}
    seen: set[str] = set()
    for path in sorted(audio_below(folder.absolute()), key=lambda path: path.name):
        name = _CLIP_NAME.fullmatch(path.stem)
        if not name:
            raise InputError(f"{path}: expected a name such as SPEAKER-CHAPTER-UTTERANCE{path.suffix}")
        if name[1] not in seen:
            seen.add(name[1])
            utterance = clips.prefix + path.stem
            wavs[utterance], utt2spk[utterance] = str(path), clips.prefix + name[1]
    if not wavs or (clips.speakers and len(wavs) != clips.speakers):
        expected = f", expected {clips.speakers}" if clips.speakers else ""
        raise InputError(f"{folder}: clips of {len(wavs)} speakers{expected}; is the folder whole?")
    check_audio(wavs)
    log.info("%s: one clip each of %d additional training speakers", folder, len(wavs))
    return CorpusSet(wavs, utt2spk)
