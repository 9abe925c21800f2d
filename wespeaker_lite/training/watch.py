"""A watch over several processes that train together: says so when one of them no longer answers."""

import logging
import threading
import time

log = logging.getLogger(__name__)

FIRST_WORD = 60.0  # seconds without an exchange with the other ranks, after which a rank says so


class Watch:
    """Warns, in a thread of its own, when `beat` was not called for a minute, or for half of `limit` seconds.

    A process that is stopped (SIGSTOP, a machine that hangs) is not dead: nothing ends it, and the others wait.
    """

    def __init__(self, who: str = "", limit: float = 0.0) -> None:
        self.who, self.limit = who, limit
        self._last = time.monotonic()
        self._ended = threading.Event()

    def start(self) -> None:
        """Watch from now on."""
        self.beat()
        threading.Thread(target=self._watch, daemon=True).start()

    def beat(self) -> None:
        """Note that the others have just answered."""
        self._last = time.monotonic()

    def end(self) -> None:
        """Watch no longer."""
        self._ended.set()

    def _watch(self) -> None:
        patience, told = min(FIRST_WORD, self.limit / 2), 0.0
        while not self._ended.wait(patience / 10):
            last = self._last
            if time.monotonic() - last > patience and last != told:
                told = last
                log.warning(
                    "%s has heard nothing from the others for %.0f seconds; is one of them stopped, or its machine? "
                    "Training ends after %.0f seconds of it (runtime.patience, in minutes)",
                    self.who, patience, self.limit,
                )  # fmt: skip
