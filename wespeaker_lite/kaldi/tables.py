"""Kaldi text tables: a key and a value per line, sorted by key in byte order (LC_ALL=C), keys unique."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_lines

_COUNT = re.compile(r"[0-9]{1,18}")


def iter_table(path: str | Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, key and value of every record. Only one line is in memory.

    Raises:
        InputError: naming file and line, if a line is blank, has a key without value or a zero byte, a key is repeated
            or out of order, or the file is missing, empty, not UTF-8, or lacks the newline at its end.
    """
    path, number, line, previous = Path(path), 0, b"", b""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    with open(path, "rb") as file:  # as bytes: keys are sorted by bytes, and only ASCII spaces separate fields
        try:
            for number, line in enumerate(file, start=1):
                key, value = line.split(None, 1)
                if key <= previous:
                    raise _out_of_order(path, number, key, previous)
                if b"\0" in line:  # neither a path nor numpy's bytes can hold it
                    raise _zero_byte(path, number)
                previous = key
                yield number, key.decode(), value.rstrip().decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}:{number}: not UTF-8 text: {error}") from error
        except ValueError:  # from split: unlike a check, it costs nothing on a good line
            raise _no_record(path, number, line) from None
    if not line.endswith(b"\n"):
        raise _no_record(path, number, line)


def key_and_value(path: Path, number: int, line: bytes) -> tuple[str, str]:
    """Split a line into key and value, either of which may be missing: for tables that are not valid.

    Raises:
        InputError: naming file and line, if it is not UTF-8 or holds a zero byte.
    """
    if b"\0" in line:
        raise _zero_byte(path, number)
    try:
        key, value, *_ = *(field.rstrip().decode() for field in line.split(None, 1)), "", ""
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:{number}: not UTF-8 text: {error}") from error
    return key, value


def _zero_byte(path: Path, number: int) -> InputError:
    return InputError(f"{path}:{number}: a zero byte: the file is damaged")


def _no_record(path: Path, number: int, line: bytes) -> InputError:
    if number == 0:
        return InputError(f"{path}: the file is empty")
    if not line.endswith(b"\n"):
        return InputError(f"{path}:{number}: the last line has no newline: the file was cut")
    return InputError(f"{path}:{number}: expected a key and a value, found {line[:200].rstrip()!r}")


def _out_of_order(path: Path, number: int, key: bytes, previous: bytes) -> InputError:
    fault = "appears twice" if key == previous else "is not in LC_ALL=C order"
    return InputError(f"{path}:{number}: key {key.decode(errors='replace')!r} {fault}; run: {fix_command(path.parent)}")


def fix_command(directory: str | Path) -> str:
    """The command that fixes a data directory."""
    return f"tools/data_dir.sh fix {directory}"


def read_table(path: str | Path) -> dict[str, str]:
    """Read a table into a dict of key to value, in the order of the file.

    Raises:
        InputError: as `iter_table`.
    """
    return {key: value for _, key, value in iter_table(path)}


def iter_counts(path: str | Path) -> Iterator[tuple[str, int]]:
    """Yield keys and numbers of frames of a utt2num_frames.

    Raises:
        InputError: as `iter_table`, and naming file and line, if a value is not a number above 0.
    """
    for number, key, value in iter_table(path):
        if not _COUNT.fullmatch(value) or int(value) < 1:
            raise InputError(f"{path}:{number}: {key!r} has {value!r} frames; expected a number above 0")
        yield key, int(value)


def sorted_keys(keys: Iterable[str]) -> list[str]:
    """Keys in byte order, as `LC_ALL=C sort` gives."""
    return sorted(keys)  # Python compares code points; their order is that of their UTF-8 bytes


def write_table(path: str | Path, table: Mapping[str, object]) -> None:
    """Write a table sorted by key. It appears whole or not at all.

    Raises:
        InputError: if a table cannot hold a key or value (white space in a key, a line break, no value).
    """
    write_lines(path, (_line(path, key, str(table[key])) for key in sorted_keys(table)))


def _line(path: str | Path, key: str, value: str) -> str:
    if not key or key.split() != [key] or not value.strip() or "\n" in value or "\0" in key + value:
        raise InputError(f"{path}: {key!r} {value!r} cannot be written into a table")
    return f"{key} {value}\n"


def spk2utt_of(utt2spk: Mapping[str, str]) -> dict[str, list[str]]:
    """Turn utterance -> speaker into speaker -> utterances, both in byte order."""
    spk2utt: dict[str, list[str]] = {}
    for utterance in sorted_keys(utt2spk):
        spk2utt.setdefault(utt2spk[utterance], []).append(utterance)
    return {speaker: spk2utt[speaker] for speaker in sorted_keys(spk2utt)}
