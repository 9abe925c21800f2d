"""Damage to the outputs of a stage, as by a crash, a bad copy or a mistake of a user."""

import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.end_to_end.checkout import Checkout

# Files that no later stage reads: logs, and tables of jobs, which were merged.
UNREAD = ("*.log", "metrics.jsonl", ".lock", "cost.json", "fbank/feats.*.[!a]*")


def artefacts(checkout: Checkout) -> list[Path]:
    """The files that stages write and read, with stamps and checkpoints, but without the corpus."""
    corpus = checkout.folder / "data/mini/corpus"
    files = sorted(path for name in ("data", "exp") for path in (checkout.folder / name).rglob("*") if path.is_file())
    return [path for path in files if corpus not in path.parents and not any(map(path.match, UNREAD))]


def flip(path: Path, chance: random.Random, _: list[Path]) -> None:
    """Flip one bit; the size stays."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def zero(path: Path, chance: random.Random, _: list[Path]) -> None:
    """Overwrite up to 4096 bytes by zeros; the size stays."""
    content = bytearray(path.read_bytes())
    begin = chance.randrange(len(content))
    end = min(len(content), begin + 4096)
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)


def cut(path: Path, chance: random.Random, _: list[Path]) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def cut_at_line(path: Path, chance: random.Random, _: list[Path]) -> None:
    """Keep some complete lines, so that the table is still well-formed."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: chance.randrange(len(lines))]))


def empty(path: Path, _: random.Random, __: list[Path]) -> None:
    os.truncate(path, 0)


def remove(path: Path, _: random.Random, __: list[Path]) -> None:
    path.unlink()


def swap(path: Path, chance: random.Random, others: list[Path]) -> None:
    """Swap the contents of two files of the same kind: each is valid, but wrong."""
    other = chance.choice([found for found in others if found.suffix == path.suffix])
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


DAMAGES: tuple[Callable[[Path, random.Random, list[Path]], None], ...] = (
    flip, zero, cut, cut_at_line, empty, remove, swap,
)  # fmt: skip
