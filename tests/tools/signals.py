"""Signals of programs under test."""

import signal


def take_signals(ignored: str = "") -> None:
    """Run in the child: the tests may themselves run where signals are ignored (in the background, under nohup)."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN if name == ignored else signal.SIG_DFL)
