"""Warn when one of several training processes no longer answers."""

import logging
import threading
import time

log = logging.getLogger(__name__)

FIRST_WARNING = 60.0  # seconds without an answer of the other ranks


class Watch:
    """A thread that warns if `beat` is not called for a minute, or for half of `limit` seconds if that is less.

    A stopped process (SIGSTOP, a machine that hangs) does not end, and the others wait for it.
    """

    def __init__(self, who: str = "", limit: float = 0.0) -> None:
        self.who, self.limit = who, limit
        self._last = time.monotonic()
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self.beat()
        threading.Thread(target=self._watch, daemon=True).start()

    def beat(self) -> None:
        """Note that the others have just answered."""
        self._last = time.monotonic()

    def end(self) -> None:
        """Stop the thread."""
        self._ended.set()

    def _watch(self) -> None:
        patience, warned = min(FIRST_WARNING, self.limit / 2), 0.0
        while not self._ended.wait(patience / 10):
            last = self._last
            if time.monotonic() - last > patience and last != warned:
                warned = last
                log.warning(
                    "%s has had no answer from the others for %.0f seconds; has one of them stopped, or its machine? "
                    "Training ends after %.0f seconds without an answer (runtime.patience, in minutes)",
                    self.who, patience, self.limit,
                )  # fmt: skip
