"""MUSAN (OpenSLR 17) and RIRS_NOISES (OpenSLR 28) as published: noise, music, speech and impulse responses."""

import os
from collections.abc import Iterable
from pathlib import Path

from wespeaker_lite.audio.reading import audio_seconds
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.audio_files import audio_below
from wespeaker_lite.data.mel_augmentation import NOISE_KINDS

ROOM_SIZES = ("smallroom", "mediumroom", "largeroom")


def read_musan(folder: str | Path) -> dict[str, list[Path]]:
    """Find the files of MUSAN, `musan/{noise,music,speech}/<source>/*.wav`: kind -> files in byte order.

    A similar folder with only some of the kinds is accepted. Source: Snyder et al. 2015, "MUSAN: A Music, Speech, and
    Noise Corpus".

    Raises:
        InputError: if there is no kind, or a kind without files; or naming a file that is empty or cannot be read.
    """
    folder = Path(folder)
    kinds = [kind for kind in NOISE_KINDS if (folder / kind).is_dir() or (folder / "musan" / kind).is_dir()]
    root = _root_of(folder, "musan", kinds or NOISE_KINDS)
    return {kind: _checked(root / kind, audio_below(root / kind)) for kind in kinds}


def read_rirs(folder: str | Path) -> list[Path]:
    """Find the simulated room impulse responses, `RIRS_NOISES/simulated_rirs/{small,medium,large}room/Room*/*.wav`.

    The published recipes for VoxCeleb use these. The real responses are not used, because they have several channels.
    Source: Ko et al. 2017, "A study on data augmentation of reverberant speech for robust speech recognition".

    Raises:
        InputError: if a room size is missing or has no file; or naming a file that is empty or cannot be read.
    """
    root = _root_of(Path(folder), "RIRS_NOISES", ("simulated_rirs",)) / "simulated_rirs"
    missing = [size for size in ROOM_SIZES if not (root / size).is_dir()]
    if missing:
        raise InputError(f"{root} has no {missing[0]}/: unpack RIRS_NOISES again")
    return [path for size in ROOM_SIZES for path in _checked(root / size, audio_below(root / size))]


def _root_of(folder: Path, name: str, wanted: Iterable[str]) -> Path:
    """The root of the unpacked archive: `folder`, or the subfolder `name`."""
    for root in (folder, folder / name):
        if all((root / part).is_dir() for part in wanted):
            return root.absolute()
    raise InputError(f"{folder} is not {name}: expected in it {', '.join(f'{part}/' for part in wanted)}")


def _checked(folder: Path, paths: Iterable[Path]) -> list[Path]:
    """Check that each file has samples; return the files in byte order."""
    paths = sorted(paths, key=os.fsencode)
    if not paths:
        raise InputError(f"{folder}: no audio file in it")
    faults = [fault for path in paths if (fault := _fault(path))]
    if faults:
        raise InputError(f"{faults[0]} ({len(faults)} of {len(paths)} files in {folder}); replace or remove it")
    return paths


def _fault(path: Path) -> str:
    try:
        audio_seconds(path)
    except InputError as error:
        return str(error)
    return ""
