"""Requests to stop: by a scheduler before its time limit, by a cancelled job, or by a user."""

import signal
from types import FrameType, TracebackType

# TERM: Slurm at the time limit, run.pl, torchrun, kill. USR1 and USR2: Grid Engine (s_rt, -notify), sbatch --signal.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """A context in which a signal that asks to stop is stored in `signal`, so that the loop stops after a batch."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)


def leave_to_parent(worker: int) -> None:
    """Make a DataLoader's worker ignore signals to the process group. Its parent handles them and still needs it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
