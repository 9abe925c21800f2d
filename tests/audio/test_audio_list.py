"""audio.list changes when an audio file changes, also if the file is in the command of a pipe."""

import os
from pathlib import Path

import pytest

from wespeaker_lite.audio.audio_list import list_audio
from wespeaker_lite.core.errors import InputError


@pytest.mark.parametrize("entry", ["{}", "ffmpeg -v error -i {} -f wav - |", "sox '{}' -t wav - speed 0.9 |"])
def test_a_replaced_file_is_noticed(tmp_path: Path, entry: str) -> None:
    audio = tmp_path / ("a b.m4a" if "'" in entry else "a.m4a")
    audio.write_bytes(b"first")
    (tmp_path / "wav.scp").write_text(f"s-a {entry.format(audio)}\n")
    list_audio(tmp_path)
    before = (tmp_path / "audio.list").read_text()
    list_audio(tmp_path)
    assert (tmp_path / "audio.list").read_text() == before
    os.utime(audio, ns=(1, 1))
    list_audio(tmp_path)
    assert (tmp_path / "audio.list").read_text() == before.rpartition(" ")[0] + " 1\n"
    audio.unlink()
    list_audio(tmp_path)
    assert (tmp_path / "audio.list").read_text() == f"s-a {entry.format(audio)} -\n"


def test_a_command_is_refused_with_its_line_where_pipes_are_forbidden(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("s-a a.wav\ns-b cat noise |\n")
    with pytest.raises(InputError, match=r"wav\.scp:2: 's-b' is a command, which --no-pipes forbids: cat noise \|"):
        list_audio(tmp_path, pipes=False)
    assert not (tmp_path / "audio.list").exists()
    list_audio(tmp_path)


def test_a_command_without_files_is_listed_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("s-a cat noise |\n")
    list_audio(tmp_path)
    assert (tmp_path / "audio.list").read_text() == "s-a cat noise |\n"
