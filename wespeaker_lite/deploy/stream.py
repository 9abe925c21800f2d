"""A running decision over a recording, as a device would make it: a score at each hop, of a window that ends there."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wespeaker_lite.audio.reading import audio_seconds, read_audio
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.deploy.decision import Rule, decide, describe
from wespeaker_lite.deploy.speaker_model import LONGEST, SHORTEST, SpeakerModel, check_length, is_silent


@dataclass(frozen=True)
class StreamOptions:
    """Seconds: `window`, or 0 for all audio so far (the last minute at most), and the `hop` between decisions."""

    window: float = 3.0
    hop: float = 0.5

    def __post_init__(self) -> None:
        if self.window and not SHORTEST <= self.window <= LONGEST:
            raise InputError(f"--window {self.window:g}: expected 0 (growing), or {SHORTEST} to {LONGEST:g} seconds")
        if not 0.01 <= self.hop < float("inf"):
            raise InputError(f"--hop {self.hop:g}: expected 0.01 seconds or more")


@dataclass(frozen=True)
class Step:
    """The end of a window in seconds, its score or None where it is silent, and the seconds that the embedding took."""

    end: float
    score: float | None
    cost: float


def stream(model: SpeakerModel, enroll: Sequence[np.ndarray], path: str, options: StreamOptions) -> Iterator[Step]:
    """Score each window of a file against enrolment embeddings, each (D,); a step knows no audio after its end.

    Within a window the network sees all frames at once: it is not causal, and each window is computed again.

    Raises:
        InputError: as `SpeakerModel.embed`; a silent window is no error.
    """
    seconds, rate = audio_seconds(path), model.features.sample_rate
    check_length(path, seconds)
    for number in range(1, int(seconds / options.hop + 1e-6) + 1):
        end = min(number * options.hop, seconds)
        if end < SHORTEST:
            continue
        samples = read_audio(path, rate, max(0.0, end - (options.window or LONGEST)), end)
        started = time.perf_counter()
        score = None if is_silent(samples) else model.compare(enroll, model.embed(samples, rate))
        yield Step(end, score, time.perf_counter() - started)


@dataclass
class Running:
    """Decisions along a recording, by a rule; `cost` is the seconds of computation that `steps` of them have taken."""

    rule: Rule
    options: StreamOptions
    cost: float = 0.0
    steps: int = 0

    def decisions(self, model: SpeakerModel, enroll: Sequence[str], path: str) -> Iterator[dict[str, Any]]:
        """Yield what `decide` gives, with the `end` of the window; only that and a `score` of None where it is silent.

        Raises:
            InputError: as `stream`, and where the recording is shorter than a hop.
        """
        for step in stream(model, [model.embed(one) for one in enroll], path, self.options):
            self.cost, self.steps = self.cost + step.cost, self.steps + 1
            yield {"end": step.end, **({"score": None} if step.score is None else decide(self.rule, step.score))}
        if not self.steps:
            raise InputError(f"{path}: shorter than --hop {self.options.hop:g}")

    def cost_said(self) -> str:
        """What the decisions cost, and of what, as a line for people."""
        window, hop = self.options.window, self.options.hop
        heard = f"{window:g} s" if window else "all so far"
        return (
            f"{self.cost / (self.steps * hop):.4f} s of computation per second of audio "
            f"(window {heard}, hop {hop:g} s, threads {torch.get_num_threads()}); "
            "each window is computed again, and the network sees all of it at once"
        )


def line_of(decision: dict[str, Any], as_json: bool) -> str:
    """One of `Running.decisions` as a line, for people or as JSON."""
    if as_json:
        return json.dumps(decision)
    return f"{decision['end']:.2f} s: {'silent' if decision['score'] is None else describe(decision)}"
