"""Gather the outputs of feature jobs into a data directory."""

import logging
import re
from pathlib import Path

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_text
from wespeaker_lite.corpora.augmented_copies import Copy
from wespeaker_lite.kaldi.data_dir import SPK2UNLABELLED, unlabelled_speakers
from wespeaker_lite.kaldi.fix import fix
from wespeaker_lite.kaldi.tables import read_table, spk2utt_of, write_table

log = logging.getLogger(__name__)

# The list of utterances that are not in a data dir because they could not be read. Results count them.
LEFT_OUT = "left_out"
TABLES = {"scp": "feats.scp", "utt2num_frames": "utt2num_frames", "utt2dur": "utt2dur"}
_ITSELF = Copy()


def gather(source: Path, parts: Path, out: Path, copy: Copy = _ITSELF) -> None:
    """Write feats.scp, utt2num_frames and utt2dur of `out` from PARTS/feats.N.*, the features of a copy of `source`.

    If `out` is another folder than `source`, utt2spk, spk2utt and spk2unlabelled are written too. Later stages depend
    on feats.sum, a checksum of the features that does not depend on the number of jobs. Utterances that the jobs left
    out are dropped from `out` and listed in its file `left_out`.

    Raises:
        InputError: if an utterance of `source` has no features and was not left out.
    """
    pairs = read_table(source / "utt2spk").items()
    utt2spk = {copy.utterance(utterance): copy.speaker(speaker) for utterance, speaker in pairs}
    tables = {name: _joined(parts, ending) for ending, name in TABLES.items()}
    lines = [line for path in parts.glob("feats.*.bad") for line in path.read_text().splitlines()]
    bad = {copy.utterance(line.split()[0]) for line in lines}
    for name, table in tables.items():
        lost = sorted(utt2spk.keys() - table.keys() - bad)
        if lost or table.keys() - utt2spk.keys():
            raise InputError(f"{parts}: {name} of the parts lacks {len(lost)} of {len(utt2spk)} utterances: {lost[:3]}")
    if out != source:
        write_table(out / "utt2spk", utt2spk)
        speakers = spk2utt_of(utt2spk)
        write_table(out / "spk2utt", {speaker: " ".join(utterances) for speaker, utterances in speakers.items()})
        (out / SPK2UNLABELLED).unlink(missing_ok=True)
        if unlabelled := unlabelled_speakers(source):
            write_table(out / SPK2UNLABELLED, dict.fromkeys(map(copy.speaker, unlabelled), "yes"))
    for name, table in tables.items():
        write_table(out / name, table)
    total = sum(int(path.with_suffix(".sum").read_text(), 16) for path in parts.glob("feats.*.scp"))
    write_text(out / "feats.sum", f"{total:x}\n")
    earlier = set((out / LEFT_OUT).read_text().split()) if (out / LEFT_OUT).exists() and out == source else set()
    left_out = sorted(bad | (earlier - utt2spk.keys()))  # earlier dropped ones are not in the jobs
    (out / LEFT_OUT).unlink(missing_ok=True)
    if left_out:
        write_text(out / LEFT_OUT, "".join(f"{utterance}\n" for utterance in left_out))
    if bad:
        log.warning("%s: %d utterances could not be read and are dropped (%s)", out, len(bad), sorted(bad)[0])
        fix(out)


def _joined(parts: Path, ending: str) -> dict[str, str]:
    """Join the tables PARTS/feats.N.ENDING in numeric order."""
    numbered = {
        int(found[1]): path
        for path in parts.iterdir()
        if (found := re.fullmatch(rf"feats\.(\d+)\.{ending}", path.name))
    }
    table: dict[str, str] = {}
    for number in sorted(numbered):
        table.update(read_table(numbered[number]))
    return table
