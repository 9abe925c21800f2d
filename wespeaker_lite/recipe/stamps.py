"""Stamps: small files with the digests of a stage's inputs and outputs, so that a second run can skip the stage.

The text of a stamp depends only on the contents of inputs and outputs. So a stamp can be an input of the next stage
instead of arks and checkpoints, which are then compared with it. `<stamp>.seen` caches the digests of files.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wespeaker_lite.core.digests import Digests, beside
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_text
from wespeaker_lite.recipe import resolved

log = logging.getLogger(__name__)

# Ends of paths, and the stages that make these files, for messages about missing or damaged inputs.
MADE_BY = {
    ".get.stamp": "stage 0",
    ".lists.stamp": "stage 1",
    ".list.stamp": "stage 2 with --musan-dir or --rirs-dir",
    ".fbank.stamp": "stage 2",
    "wav.scp": "stage 1",
    "utt2spk": "stage 1",
    "spk2unlabelled": "stage 1",
    "audio.list": "stage 1",
    "utt2num_frames": "stage 2",
    "feats.sum": "stage 2",
    ".train.stamp": "stage 4 (stage 3 for a teacher)",
    "final.pt": "stage 4 (stage 3 for a teacher)",
    ".embed.stamp": "stage 5 (stage 3 for a teacher's)",
    ".score.stamp": "stage 6",
    ".report.stamp": "stage 7",
    ".export.stamp": "stage 8",
    "results.json": "stage 6",
}


@dataclass(frozen=True)
class Inputs:
    """The inputs of a stage: files by content, trees by names, sizes and times, the rest by value.

    `current`: stamps of files that the stage reads and whose digests are not among its inputs, such as arks. Their
    inputs and outputs must be unchanged, but their text is not an input. `folders`: trees with too many files, of which
    only the modification times of folders are checked. These change if a file is added, removed or replaced by
    renaming, but not if a file is overwritten in place.
    """

    files: tuple[str, ...] = ()
    trees: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    config: str = ""
    sections: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    current: tuple[str, ...] = ()

    def digests(self, files: Digests | None = None) -> dict[str, str]:
        """Map the name of each input to its SHA-256. `files` caches those of files.

        Raises:
            InputError: naming a missing input and, if known, the stage that makes it.
        """
        of_file = files.of if files else _sha256_of_file
        digests = {f"word {number}": _sha256(word.encode()) for number, word in enumerate(self.words)}
        for path in self.files:
            _check_is_file(path)
            digests[path] = of_file(path)
        for tree in self.trees:
            digests[f"{tree}/"] = _sha256("\n".join(_listing(Path(tree))).encode())
        for tree in self.folders:
            _check_is_folder(Path(tree))
            digests[f"{tree}/"] = _sha256(os.fsencode("\n".join(_folders(tree, set()))))
        sections = _sections(self.config, self.sections) if self.sections else {}
        for section, value in sections.items():
            digests[f"config {section}"] = _sha256(json.dumps(value, sort_keys=True).encode())
        return digests


@dataclass(frozen=True)
class Record:
    """The content of a stamp: digests of inputs by name, digests of outputs by path (for a folder, the number of its
    files), and the outputs that users may edit."""

    inputs: dict[str, str]
    outputs: dict[str, str | int]
    editable: tuple[str, ...] = ()


def is_fresh(stamp: str | Path, inputs: Inputs) -> bool:
    """Whether the stamp exists, has these inputs, and its outputs are unchanged.

    Raises:
        InputError: if an input is missing or differs from the stamp of the stage that made it. Also if a user changed
            an editable output, because running the stage would overwrite it.
    """
    seen = Digests(f"{stamp}.seen")
    digests = inputs.digests(seen)
    _check_inputs(inputs, seen)
    if not os.path.exists(stamp):
        return False
    record = read(stamp)
    if record is None:
        log.warning("%s cannot be read; its stage is done again", stamp)
        return False
    changed = sorted(name for name in digests.keys() | record.inputs if digests.get(name) != record.inputs.get(name))
    for path, made in sorted(record.outputs.items()):
        if not _is_as_made(path, made, seen):
            changed.append(path)
            if path in record.editable and _size(path):
                raise InputError(_fault(path, stamp, record))
    seen.save()
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        log.info("%s%s changed since %s was made; doing it again", changed[0], more, stamp)
    return not changed


def write(stamp: str | Path, inputs: Inputs, outputs: Iterable[str], editable: Iterable[str] = ()) -> None:
    """Write the stamp of a stage that has just succeeded. `editable` are outputs too.

    Raises:
        InputError: if an output is missing or empty.
    """
    seen = Digests(f"{stamp}.seen")
    editable = tuple(editable)
    made = {path: _made(path, seen) for path in (*outputs, *editable)}
    _write(stamp, Record(inputs.digests(seen), made, editable), seen)


def accept(stamp: str | Path, outputs: Iterable[str]) -> None:
    """Accept outputs that a user has changed: write their digests into the stamp.

    Raises:
        InputError: if the stamp cannot be read or has no such output.
    """
    record = _read(stamp)
    seen = Digests(f"{stamp}.seen")
    for path in outputs:
        if path not in record.outputs:
            raise InputError(f"{stamp} has no output {path}, only {', '.join(record.outputs)}")
        record.outputs[path] = _made(path, seen)
    _write(stamp, record, seen)


def check_made(path: str | Path) -> None:
    """Check a file of an experiment, which may have been moved since, with the stamp of its stage, where one is there.

    For programs that are called by hand; without a stamp nothing is known of the file.

    Raises:
        InputError: where it is not what its stage made.
    """
    path = Path(path)
    for stamp in beside(path, ".*.stamp"):
        record, name = read(stamp), f"/{path.relative_to(stamp.parent).as_posix()}"
        for output, made in (record.outputs if record else {}).items():
            if output.endswith(name) and isinstance(made, str) and not Digests(f"{stamp}.seen").agree(path, made):
                raise InputError(f"{path} was damaged or changed after {stamp} was written: run {_stage(stamp)} again")


def read(stamp: str | Path) -> Record | None:
    """Read a stamp; None if the file is missing or no stamp."""
    try:
        found = json.loads(Path(stamp).read_text(encoding="utf-8"))
        return Record(dict(found["inputs"]), dict(found["outputs"]), tuple(found.get("editable", ())))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(stamp: str | Path) -> Record:
    _check_is_file(stamp)
    record = read(stamp)
    if record is None:
        raise InputError(f"{stamp} cannot be read: run {_stage(stamp)} again")
    return record


def _write(stamp: str | Path, record: Record, seen: Digests) -> None:
    seen.save(forget=True)
    write_text(stamp, json.dumps(asdict(record), indent=1, sort_keys=True) + "\n")


def _made(path: str, seen: Digests) -> str | int:
    if not _size(path):
        raise InputError(f"{path} was not made: it is missing or empty")
    return _size(path) if os.path.isdir(path) else seen.of(path)


def _is_as_made(path: str, made: str | int, seen: Digests) -> bool:
    """Whether an output matches its stamp, or another stamp in the same folder. Stage 2, for example, rewrites tables
    of stage 1 when it drops unreadable utterances."""
    if isinstance(made, int):  # for a folder, or in an old stamp without digests
        return _size(path) == made
    return os.path.isfile(path) and (
        seen.agree(path, made) or any(record.outputs[path] == seen.of(path) for _, record in _stamps_of(path))
    )


def _stamps_of(path: str) -> Iterator[tuple[Path, Record]]:
    """The stamps in the folder of a file, or in the folder above, that have the file as an output."""
    for stamp in beside(path, ".*.stamp"):
        record = read(stamp)
        if record and path in record.outputs:
            yield stamp, record


def _check_inputs(inputs: Inputs, seen: Digests) -> None:
    """Compare the inputs of a stage with the stamps of the stages that made them."""
    for path in inputs.files:
        if path.endswith(".stamp"):
            _check_stamp(path)
        for stamp, record in _stamps_of(path):
            if not _is_as_made(path, record.outputs[path], seen):
                raise InputError(_fault(path, stamp, record))
    for stamp in inputs.current:
        _check_stamp(stamp)
        for path, digest in sorted(_read(stamp).inputs.items()):
            if os.path.isfile(path) and not seen.agree(path, digest):
                raise InputError(f"{path} has changed since {stamp} was made from it: run {_stage(stamp)} again")


def _check_stamp(stamp: str) -> None:
    """Check that the outputs of a stamp are unchanged.

    Raises:
        InputError: naming the first changed one, and the stage to run again.
    """
    record, seen = _read(stamp), Digests(f"{stamp}.seen")
    for path, made in sorted(record.outputs.items()):
        is_whole = bool(_size(path)) if path in record.editable else _is_as_made(path, made, seen)
        if not is_whole:
            raise InputError(_fault(path, stamp, record))
    seen.save()


def _fault(path: str, stamp: str | Path, record: Record) -> str:
    """The message for an output that is not as it was made."""
    if not _size(path):
        return f"{path} is missing or empty: run {_stage(path)} again"
    if path not in record.editable:
        return f"{path} was damaged or changed after {stamp} was written: run {_stage(path)} again"
    return (
        f"{path} is not as {_stage(path)} made it. If you changed it, keep the change by: "
        f"python -m wespeaker_lite.bin.stamp accept {stamp} --outputs {path}; if not, remove it, and it is made again"
    )


def _stage(path: str | Path) -> str:
    """The stage that makes a file, by the last stamp in its folder that has it as an output, or else by its name."""
    stamps = [str(stamp) for stamp, _ in _stamps_of(str(path))]
    names = [stage for known in (*stamps[-1:], str(path)) for end, stage in MADE_BY.items() if known.endswith(end)]
    return next(iter(names), "")


def _check_is_file(path: str | Path) -> None:
    if not Path(path).is_file():
        stage = _stage(path)
        raise InputError(f"{path} is not there" + (f": run {stage} first" if stage else ""))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha256_of_file(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: str) -> int:
    """Size in bytes; of a folder, the number of files and folders below it; 0 where there is nothing."""
    if os.path.isdir(path):
        return sum(len(folders) + len(names) for _, folders, names in os.walk(path))
    return os.path.getsize(path) if os.path.exists(path) else 0


def _check_is_folder(tree: Path) -> None:
    if not tree.is_dir():
        raise InputError(f"{tree}: no such folder")


def _listing(tree: Path) -> list[str]:
    """Each file of a tree with size and modification time. Links to folders are followed, once each."""
    _check_is_folder(tree)
    lines: list[str] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(tree, followlinks=True):
        folders[:] = [name for name in folders if not _seen_before(os.path.join(folder, name), seen)]
        for name in names:
            status = os.stat(os.path.join(folder, name))
            lines.append(f"{os.path.relpath(folder, tree)}/{name} {status.st_size} {status.st_mtime_ns}")
    return sorted(lines)


def _folders(tree: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield each folder of a tree with its modification time. Links to folders are followed, once each.

    A folder with a link count of 2 has no subfolders except links. If the first such folder has no links either, its
    siblings are not opened: opening all video folders of VoxCeleb would take six times as long.
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


def _seen_before(folder: str, seen: set[str]) -> bool:
    """Whether a folder was visited before, under any name."""
    real = os.path.realpath(folder)
    known = real in seen
    seen.add(real)
    return known


def _sections(config: str, sections: Iterable[str]) -> dict[str, Any]:
    found = resolved.read(config)
    return {section: found.get(section) for section in sections}  # the config of an older model lacks new sections
