"""Split a data directory into parts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.block_table import (
    numbered,
)
from wespeaker_lite.kaldi.data_dir import distribute, read_speakers


def split(directory: str | Path, parts: int, out: str | Path, per_utt: bool = False, at_most: bool = False) -> int:
    """Split into `out`/1 to `out`/N, in order and of about equal size. With `per_utt`, a speaker may be in two parts.

    Returns:
        The number of parts. With `at_most`, it is below `parts` if there are fewer speakers (utterances).

    Raises:
        InputError: if there are fewer speakers (utterances) than parts.
    """
    utt2spk = read_speakers(directory)
    speaker_of = numbered(utt2spk.column())[1]
    sizes = [1] * len(utt2spk) if per_utt else np.bincount(speaker_of).tolist()
    if at_most:
        parts = min(parts, len(sizes))
    if not 1 <= parts <= len(sizes):
        what, hint = ("utterances", "") if per_utt else ("speakers", ", or split with --per-utt")
        raise InputError(f"{directory}: {len(sizes)} {what} cannot be split into {parts}: take 1 to {len(sizes)}{hint}")
    shares = np.array(shares_of(sizes, parts))
    part_of = shares if per_utt else shares[speaker_of]
    distribute(Path(directory), utt2spk, part_of, [Path(out) / str(part + 1) for part in range(parts)])
    return parts


def shares_of(sizes: Sequence[int], parts: int) -> list[int]:
    """Assign consecutive groups of these sizes to parts 0 to parts - 1: none empty, totals about equal."""
    total, before, part, shares = sum(sizes), 0, -1, []
    for place, size in enumerate(sizes):
        middle = int((before + size / 2) * parts / total)
        part = max(min(middle, part + 1), parts - (len(sizes) - place), part)
        shares.append(part)
        before += size
    return shares
