"""A set of a corpus in memory, and writing it as a Kaldi data directory."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.data_dir import SPK2UNLABELLED
from wespeaker_lite.kaldi.tables import spk2utt_of, write_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorpusSet:
    """A set of a corpus. Utterance ids begin with the speaker's id and a `-` (or `/`)."""

    # Utterance (or recording, if there are segments) -> absolute path, or a command that ends with |.
    wavs: dict[str, str]
    utt2spk: dict[str, str]
    segments: dict[str, str] = field(default_factory=dict)  # utterance -> `recording start end`
    spk2gender: dict[str, str] = field(default_factory=dict)
    spk2age: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)  # utterance -> session; empty if unknown
    aliases: dict[str, str] = field(default_factory=dict)  # an utterance's id in the corpus -> its id here
    unlabelled: frozenset[str] = frozenset()  # placeholders in utt2spk for unknown speakers

    def of_speakers(self, speakers: Collection[str]) -> "CorpusSet":
        """The subset of some speakers."""
        return self.of_utterances({utterance for utterance, speaker in self.utt2spk.items() if speaker in speakers})

    def of_utterances(self, utterances: Collection[str]) -> "CorpusSet":
        """The subset of some utterances."""
        utt2spk = {utterance: speaker for utterance, speaker in self.utt2spk.items() if utterance in utterances}
        speakers = set(utt2spk.values())
        segments = {utterance: self.segments[utterance] for utterance in utt2spk if self.segments}
        recordings = {recording_of(segment) for segment in segments.values()} if segments else utt2spk
        return CorpusSet(
            wavs={recording: self.wavs[recording] for recording in recordings},
            utt2spk=utt2spk,
            segments=segments,
            spk2gender={speaker: sex for speaker, sex in self.spk2gender.items() if speaker in speakers},
            spk2age={speaker: age for speaker, age in self.spk2age.items() if speaker in speakers},
            sessions={utterance: self.sessions[utterance] for utterance in utt2spk if self.sessions},
            aliases={name: utterance for name, utterance in self.aliases.items() if utterance in utt2spk},
            unlabelled=self.unlabelled & speakers,
        )

    def joined(self, other: "CorpusSet") -> "CorpusSet":
        """The union of two sets. Tables of speakers and sessions that only one of them has are omitted.

        Raises:
            InputError: if a speaker or an utterance is in both, or one of them has segments.
        """
        twice = self.utt2spk.keys() & other.utt2spk.keys()
        shared = set(self.utt2spk.values()) & set(other.utt2spk.values())
        if shared:
            raise InputError(f"speaker {min(shared)!r} is in both sets ({len(shared)} such); give one a prefix")
        if twice:
            raise InputError(f"utterance {min(twice)!r} is in both sets ({len(twice)} such); give one a prefix")
        if self.segments or other.segments:
            raise InputError("sets with segments cannot be joined; cut their audio into one file per utterance")
        return CorpusSet(
            wavs=self.wavs | other.wavs,
            utt2spk=self.utt2spk | other.utt2spk,
            spk2gender=self.spk2gender | other.spk2gender if self.spk2gender and other.spk2gender else {},
            spk2age=self.spk2age | other.spk2age if self.spk2age and other.spk2age else {},
            sessions=self.sessions | other.sessions if self.sessions and other.sessions else {},
            aliases=self.aliases | other.aliases,
            unlabelled=self.unlabelled | other.unlabelled,
        )


def recording_of(segment: str) -> str:
    """The recording of a segment, `recording start end`."""
    return segment.partition(" ")[0]


def write_data_dir(folder: Path, part: CorpusSet) -> None:
    """Write a set as a Kaldi data dir. Optional files of an earlier set are removed."""
    spk2utt = spk2utt_of(part.utt2spk)
    tables = {
        "wav.scp": part.wavs,
        "segments": part.segments,
        "spk2gender": part.spk2gender,
        "spk2age": part.spk2age,
        "spk2utt": {speaker: " ".join(utterances) for speaker, utterances in spk2utt.items()},
        "utt2spk": part.utt2spk,
        SPK2UNLABELLED: dict.fromkeys(part.unlabelled, "yes"),
    }
    for name, table in tables.items():
        if table:
            write_table(folder / name, table)
        else:
            (folder / name).unlink(missing_ok=True)
    log.info("%s: %s", folder, size_of(part))


def size_of(part: CorpusSet) -> str:
    """The numbers of utterances and speakers of a set, in words."""
    without = sum(speaker in part.unlabelled for speaker in part.utt2spk.values())
    speakers = len(set(part.utt2spk.values()) - part.unlabelled)
    labelled = f"{len(part.utt2spk) - without} utterances of {speakers} speakers"
    return f"{labelled} and {without} unlabelled ones" if without else labelled
