"""Progress of long loops: without a terminal, a line after each tenth."""

import logging

import pytest

from wespeaker_lite.core.progress import with_progress


def test_each_tenth_prints_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert list(with_progress(iter("abcdefghijklmnopqrstuvwxy"), 25, "letters")) == list("abcdefghijklmnopqrstuvwxy")
    numbers = [int(message.split()[0]) for message in caplog.messages]
    assert numbers == [3, 5, 8, 10, 13, 15, 18, 20, 23, 25]
    assert caplog.messages[0] == "3 of 25 letters"


def test_no_items_print_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert list(with_progress([], 0, "files")) == []
    assert caplog.messages == []


def test_items_count_by_their_size(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    list(with_progress(["abc", "d", "", "efghij"], 10, "letters", len))
    assert caplog.messages == ["3 of 10 letters", "4 of 10 letters", "10 of 10 letters"]
