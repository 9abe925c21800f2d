"""Take a subset of a data directory."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.data_dir import distribute, first_few, read_speakers, speaker_by_utterance
from wespeaker_lite.kaldi.tables import (
    spk2utt_of,
)


@dataclass(frozen=True)
class Selection:
    """Options of a subset: files that list utterances or speakers, utterances per speaker and in all, a seed."""

    utts: str = ""
    speakers: str = ""
    per_spk: int = 0
    num_utts: int = 0
    seed: int = 0


def subset(directory: str | Path, out: str | Path, selection: Selection) -> int:
    """Write the selected utterances to the data directory `out`, and return their number.

    Raises:
        InputError: if a list has an unknown name, or there are too few utterances.
    """
    lines = read_speakers(directory)
    utt2spk = speaker_by_utterance(lines)
    chosen = list(utt2spk)
    if selection.utts:
        wanted = _read_list(selection.utts, utt2spk, directory)
        chosen = [utterance for utterance in chosen if utterance in wanted]
    if selection.speakers:
        wanted = _read_list(selection.speakers, set(utt2spk.values()), directory)
        chosen = [utterance for utterance in chosen if utt2spk[utterance] in wanted]
    rng = np.random.default_rng(selection.seed)
    if selection.per_spk:
        by_speaker = spk2utt_of({utterance: utt2spk[utterance] for utterance in chosen}).values()
        chosen = [utts[place] for utts in by_speaker for place in rng.permutation(len(utts))[: selection.per_spk]]
    if selection.num_utts > len(chosen):
        raise InputError(f"{directory}: {selection.num_utts} utterances were requested, there are {len(chosen)}")
    if selection.num_utts:
        chosen = [chosen[place] for place in rng.permutation(len(chosen))[: selection.num_utts]]
    if not chosen:
        raise InputError(f"{directory}: the selection leaves no utterance")
    wanted = set(chosen)
    part_of = np.array([0 if utterance in wanted else -1 for utterance in utt2spk])
    distribute(Path(directory), lines, part_of, [Path(out)])
    return len(chosen)


def _read_list(path: str, known: Collection[str], directory: str | Path) -> set[str]:
    """Read the first word of each line."""
    if not Path(path).exists():
        raise InputError(f"{path}: no such file")
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    wanted = {line.split()[0]: number for number, line in enumerate(lines, start=1) if line.strip()}
    unknown = [key for key in wanted if key not in known]
    if unknown:
        raise InputError(
            f"{path}:{wanted[unknown[0]]}: {unknown[0]!r} is not in {directory} "
            f"({len(unknown)} such: {first_few(unknown)})"
        )
    return set(wanted)
