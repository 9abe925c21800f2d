"""How programs end: one line for an error that a user can fix, a traceback for a bug."""

import errno
import subprocess
import sys

import pytest

from wespeaker_lite.bin import run
from wespeaker_lite.core.errors import InputError, Stopped


def ending(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr("sys.argv", ["/x/wespeaker_lite/bin/train.py"])

    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main)
    return caught.value.code


def test_input_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ending(InputError("wav.scp:3: bad"), monkeypatch) == "train: wav.scp:3: bad"


def test_the_machines_errors_name_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "a.ark")
    assert ending(full, monkeypatch) == "train: No space left on device: a.ark"
    assert ending(BrokenPipeError(), monkeypatch) == 1
    assert ending(KeyboardInterrupt(), monkeypatch) == 130


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_to_a_full_disk_is_one_line(unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    program = "from wespeaker_lite.bin import run; run(lambda: print('x'))"
    done = subprocess.run(f'{sys.executable} -c "{program}" > /dev/full', shell=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (1, b"-c: No space left on device\n")


def test_names_that_are_not_utf8_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        b"a /x/lat\351n.wav\nb".decode(errors="surrogateescape").join(["one\n", "\ntwo"]).encode()
    expected = r"train: not UTF-8: 'a /x/lat\udce9n.wav': rename that file or folder"
    assert ending(caught.value, monkeypatch) == expected


def test_a_stop_by_a_signal_exits_as_in_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ending(Stopped(15, "a checkpoint is written"), monkeypatch) == 143


def test_other_exceptions_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)
