"""Stamps: small files that say from which inputs a stage made which outputs, so that a second run can skip it.

A stamp's text depends on the inputs and the sizes of the outputs only. It can therefore be the input of the next stage,
in the place of arks and checkpoints too large to be read again each time.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wespeaker_lite import resolved
from wespeaker_lite.data.tables import write_text
from wespeaker_lite.errors import InputError

log = logging.getLogger(__name__)

# The ends of paths and the stages that make them, for the message about a missing input.
MADE_BY = {
    ".get.stamp": "stage 0",
    ".lists.stamp": "stage 1",
    "wav.scp": "stage 1",
    "utt2spk": "stage 1",
    "audio.list": "stage 1",
    "utt2num_frames": "stage 2",
    "feats.sum": "stage 2",
    ".train.stamp": "stage 4 (stage 3 for a teacher)",
    "final.pt": "stage 4 (stage 3 for a teacher)",
    ".embed.stamp": "stage 5",
    "results.json": "stage 6",
}


@dataclass(frozen=True)
class Inputs:
    """What a stage depends on: files by content, trees by names, sizes and times, the rest by value.

    Of `folders`, which are trees of a million files, only the folders in them are looked at: their times tell of files
    that came, went or were replaced by renaming, but not of one that was written over in its place.
    """

    files: tuple[str, ...] = ()
    trees: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    config: str = ""
    sections: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def digests(self) -> dict[str, str]:
        """Name each input and give its SHA-256.

        Raises:
            InputError: naming an input that is not there and, where known, the stage that makes it.
        """
        digests = {f"word {number}": _sha256(word.encode()) for number, word in enumerate(self.words)}
        for path in self.files:
            if not Path(path).is_file():
                hint = next((f": run {stage} first" for end, stage in MADE_BY.items() if path.endswith(end)), "")
                raise InputError(f"{path} is not there{hint}")
            digests[path] = _sha256_of_file(path)
        for tree in self.trees:
            digests[f"{tree}/"] = _sha256("\n".join(_listing(Path(tree))).encode())
        for tree in self.folders:
            _check_is_folder(Path(tree))
            digests[f"{tree}/"] = _sha256(os.fsencode("\n".join(_folders(tree, set()))))
        sections = _sections(self.config, self.sections) if self.sections else {}
        for section, value in sections.items():
            digests[f"config {section}"] = _sha256(json.dumps(value, sort_keys=True).encode())
        return digests


def is_fresh(stamp: str | Path, inputs: Inputs) -> bool:
    """Tell whether the stamp stands, was made from these very inputs, and its outputs still have their sizes."""
    stamp = Path(stamp)
    digests = inputs.digests()
    if not stamp.exists():
        return False
    try:
        record = json.loads(stamp.read_text(encoding="utf-8"))
        known_inputs, outputs = dict(record["inputs"]), dict(record["outputs"])
    except (ValueError, KeyError, TypeError):
        log.warning("%s cannot be read; its stage is done again", stamp)
        return False
    changed = sorted(name for name in digests.keys() | known_inputs if digests.get(name) != known_inputs.get(name))
    changed += sorted(path for path, size in outputs.items() if _size(path) != size)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        log.info("%s%s changed since %s was made; doing it again", changed[0], more, stamp)
    return not changed


def write(stamp: str | Path, inputs: Inputs, outputs: Iterable[str]) -> None:
    """Leave the stamp of a stage that has just ended well.

    Raises:
        InputError: where an output is missing or empty, although the stage said that it made it.
    """
    sizes = {path: _size(path) for path in outputs}
    for path, size in sizes.items():
        if not size:
            raise InputError(f"{path} was to be made, but is missing or empty")
    record = {"inputs": inputs.digests(), "outputs": sizes}
    write_text(stamp, json.dumps(record, indent=1, sort_keys=True) + "\n")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha256_of_file(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: str) -> int:
    """Size in bytes; of a folder, the number of files in it; 0 where there is nothing."""
    place = Path(path)
    if place.is_dir():
        return sum(1 for _ in place.rglob("*"))
    return place.stat().st_size if place.exists() else 0


def _check_is_folder(tree: Path) -> None:
    if not tree.is_dir():
        raise InputError(f"{tree}: no such folder")


def _listing(tree: Path) -> list[str]:
    """Each file of a tree with its size and time of change; links to folders are followed, once each."""
    _check_is_folder(tree)
    lines: list[str] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(tree, followlinks=True):
        folders[:] = [name for name in folders if not _met(os.path.join(folder, name), seen)]
        for name in names:
            status = os.stat(os.path.join(folder, name))
            lines.append(f"{os.path.relpath(folder, tree)}/{name} {status.st_size} {status.st_mtime_ns}")
    return sorted(lines)


def _folders(tree: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Each folder of a tree with its time of change; links to folders are followed, once each.

    A folder of two links (`.` and its name above) has no folder in it but a linked one. Such are not opened if the
    first of their kind beside them has none of these either: opening the videos of VoxCeleb takes six times as long.
    """
    with os.scandir(tree) as entries:
        folders = sorted((entry for entry in entries if entry.is_dir()), key=lambda entry: entry.name)
    leaves_are_empty = False
    for folder in folders:
        status = folder.stat()
        yield f"{folder.path} {status.st_mtime_ns}"
        is_leaf = status.st_nlink == 2
        if (status.st_dev, status.st_ino) in seen or (is_leaf and leaves_are_empty):
            continue
        seen.add((status.st_dev, status.st_ino))
        inside = list(_folders(folder.path, seen))
        yield from inside
        leaves_are_empty = leaves_are_empty or (is_leaf and not inside)


def _met(folder: str, seen: set[str]) -> bool:
    """Whether a folder was met before, by whatever name."""
    real = os.path.realpath(folder)
    known = real in seen
    seen.add(real)
    return known


def _sections(config: str, sections: Iterable[str]) -> dict[str, Any]:
    found = resolved.read(config)
    return {section: found.get(section) for section in sections}  # that of an older model lacks what came later
