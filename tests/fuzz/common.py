"""Shared code of the fuzz tests: the number of examples, damage to content, and the allowed outcomes."""

import signal
from collections.abc import Callable
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st

from wespeaker_lite.core.errors import InputError

Result = TypeVar("Result")
_SECONDS = 20  # what takes longer hangs


def examples(count: int) -> settings:
    """Run this number of examples, always the same ones; with the long profile of conftest.py its own number."""
    if settings.get_current_profile_name() == "long":
        return settings()
    return settings(max_examples=count, derandomize=True, database=None, deadline=None)


def outcome(read: Callable[[], Result]) -> Result | None:
    """The result of `read`, or None if it raises an error of one line. Any other exception is a bug.

    An OSError is allowed: `wespeaker_lite.bin.run` prints it as one line.
    """

    def hangs(*_: object) -> None:
        raise AssertionError(f"no end after {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(_SECONDS)
    result, message = None, "said"
    try:
        result = read()
    except InputError as error:
        message = str(error)
    except OSError:
        pass
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert len(message.splitlines()) == 1
    return result


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with bytes changed, inserted or removed, or truncated."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        count = draw(st.integers(0, 8))
        match draw(st.sampled_from(["change", "insert", "remove", "cut"])):
            case "change":
                data[place : place + count] = draw(st.binary(min_size=count, max_size=count))
            case "insert":
                data[place:place] = draw(st.binary(max_size=8))
            case "remove":
                del data[place : place + count]
            case "cut":
                del data[place:]
    return bytes(data)
