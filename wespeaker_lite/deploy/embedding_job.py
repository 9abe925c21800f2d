"""Extract the embeddings of a list of recordings."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from wespeaker_lite.audio.audio_list import iter_audio
from wespeaker_lite.audio.reading import open_recording
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import replacing
from wespeaker_lite.core.progress import with_progress
from wespeaker_lite.deploy.speaker_model import SpeakerModel
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.kaldi.tables import sorted_keys

log = logging.getLogger(__name__)


def list_sources(words: Sequence[str], pipes: bool) -> dict[str, str]:
    """Recordings by id: from a wav.scp, from a list of paths, or from paths in `words`. The id of a path is the path.

    Raises:
        InputError: if a recording appears twice, the list is empty, or has a command (in a wav.scp: without `pipes`).
    """
    if len(words) == 1 and words[0].endswith(".scp"):
        return {key: value for _, key, value in iter_audio(words[0], pipes)}
    if len(words) == 1 and words[0].endswith((".txt", ".list")):
        try:
            words = [line for line in Path(words[0]).read_text(encoding="utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise InputError(f"{words[0]}: not UTF-8 text: {error}") from error
    sources = {word: word for word in words}
    if len(sources) < len(words) or not sources:
        twice = next((word for word in sources if words.count(word) > 1), None)
        raise InputError(f"{twice}: appears twice" if twice else "the list has no recordings")
    if command := next((word for word in words if word.endswith("|")), None):
        raise InputError(f"{command}: commands are allowed only in a wav.scp")
    return sources


def embed_all(model: SpeakerModel, sources: Mapping[str, str], out: str, max_bad: int = 0) -> None:
    """Write an embedding of each recording to the .npz `out`, or to `out`.ark and `out`.scp.

    The error of each bad recording is logged.

    Raises:
        InputError: if more than `max_bad` recordings, or all, have no embedding. Nothing is written then.
    """
    as_npz = out.endswith(".npz")
    spaced = next((key for key in sources if len(key.split()) != 1), None)
    if spaced is not None and not as_npz:
        raise InputError(f"{spaced!r}: an id in an ark has no spaces; give ids in a wav.scp, or write .npz")
    vectors: dict[str, np.ndarray] = {}
    bad: list[str] = []
    for key, value in with_progress(sources.items(), len(sources), "recordings"):
        try:
            vectors[key] = _embed(model, value)
        except InputError as error:
            bad.append(f"{key}: {error}")
            log.error("%s: %s", key, error)
    if len(bad) > max_bad or not vectors:
        raise InputError(
            f"{len(bad)} of {len(sources)} recordings have no embedding; first: {bad[0]}; allow this with --max-bad"
        )
    if as_npz:
        with replacing(out) as file:
            np.savez(file, ids=np.array(list(vectors)), embeddings=np.stack(list(vectors.values())))
    else:
        with ArkWriter(out) as writer:
            for key in sorted_keys(vectors):
                writer.write(key, vectors[key])
    log.info("%d embeddings in %s", len(vectors), out if as_npz else f"{out}.ark")


def _embed(model: SpeakerModel, value: str) -> np.ndarray:
    with open_recording(value) as recording:
        return model.embed_recording(recording)
