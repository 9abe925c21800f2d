"""Decisions along a recording, as on a device: at each hop, the window that ends there is scored."""

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
    """In seconds: `window`, or 0 for all audio so far (at most the last minute), and `hop` between decisions."""

    window: float = 3.0
    hop: float = 0.5

    def __post_init__(self) -> None:
        if self.window and not SHORTEST <= self.window <= LONGEST:
            raise InputError(f"--window {self.window:g}: expected 0 (growing), or {SHORTEST} to {LONGEST:g} seconds")
        if not 0.01 <= self.hop < float("inf"):
            raise InputError(f"--hop {self.hop:g}: expected 0.01 seconds or more")


@dataclass(frozen=True)
class Step:
    """End of a window in seconds, its score (None if it is silent), and seconds of computation (`cost`)."""

    end: float
    score: float | None
    cost: float


def stream(model: SpeakerModel, enroll: Sequence[np.ndarray], path: str, options: StreamOptions) -> Iterator[Step]:
    """Score each window of a file against enrolment embeddings, each (D,). A step uses no audio after its end.

    The network is not causal: it uses all frames of a window at once, and computes each window from the start.

    Raises:
        InputError: as `SpeakerModel.embed`, except for a silent window.
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
    """Decisions along a recording, by a rule. `cost` is the seconds of computation for the `steps` so far."""

    rule: Rule
    options: StreamOptions
    cost: float = 0.0
    steps: int = 0

    def decisions(self, model: SpeakerModel, enroll: Sequence[str], path: str) -> Iterator[dict[str, Any]]:
        """Yield the result of `decide` and the `end` of each window; for a silent one only `end` and the `score` None.

        Raises:
            InputError: as `stream`, and if the recording is shorter than a hop.
        """
        for step in stream(model, [model.embed(one) for one in enroll], path, self.options):
            self.cost, self.steps = self.cost + step.cost, self.steps + 1
            yield {"end": step.end, **({"score": None} if step.score is None else decide(self.rule, step.score))}
        if not self.steps:
            raise InputError(f"{path}: shorter than --hop {self.options.hop:g}")

    def cost_said(self) -> str:
        """The cost of the decisions and their settings, as a line of text."""
        window, hop = self.options.window, self.options.hop
        heard = f"{window:g} s" if window else "all so far"
        return (
            f"{self.cost / (self.steps * hop):.4f} s of computation per second of audio "
            f"(window {heard}, hop {hop:g} s, threads {torch.get_num_threads()}); "
            "each window is computed from the start, with all its frames at once"
        )


def line_of(decision: dict[str, Any], as_json: bool) -> str:
    """One of `Running.decisions` as a line of text or JSON."""
    if as_json:
        return json.dumps(decision)
    return f"{decision['end']:.2f} s: {'silent' if decision['score'] is None else describe(decision)}"
