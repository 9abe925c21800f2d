"""Shared code of the tests of run.pl, queue.pl and slurm.pl."""

import re
import signal

from hypothesis import strategies as st

# Any words except those that a runner reads as operators.
WORDS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12).filter(
        lambda word: not re.match(r"[\d&]?[<>|;&()]", word)
    ),
    min_size=10,
    max_size=40,
)
AWKWARD_WORDS = ["0\n", "a b", "line\nline", "'"]


def reset_signals(ignored: str = "") -> None:
    """Reset signals in the child, since the tests may run with ignored signals (in the background, by nohup)."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN if name == ignored else signal.SIG_DFL)
