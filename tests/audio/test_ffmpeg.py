"""m4a through ffmpeg: only audio is decoded, and playlists are not followed."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wespeaker_lite.audio.ffmpeg import decode_listed, find_ffmpeg, flac_path, pipe_of
from wespeaker_lite.audio.reading import read_audio
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.tables import write_table

RATE = 16000
SOUND = np.sin(np.arange(RATE) / 10).astype(np.float32) / 4
PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile next.m4a\n",
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\nnext.m4a\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" minBufferTime="PT1S" '
    'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet '
    'mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>next.m4a</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 96\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound as .m4a and .aac, and playlists that refer to it."""
    folder = tmp_path_factory.mktemp("m4a")
    soundfile.write(folder / "x.wav", SOUND, RATE)
    for name in ("next.m4a", "x.aac"):
        command = [find_ffmpeg(), "-v", "error", "-i", folder / "x.wav", folder / name]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    for name, text in PLAYLISTS.items():
        (folder / f"{name}.m4a").write_text(text)
    return folder


@pytest.mark.parametrize("name", ["next.m4a", "x.aac"])
def test_the_format_is_determined_by_content_not_by_name(folder: Path, name: str) -> None:
    named = folder / f"{name}.other.m4a"
    named.write_bytes((folder / name).read_bytes())
    samples = read_audio(pipe_of(find_ffmpeg(), str(named)), RATE)
    middle = samples[len(samples) // 2 - 4000 :][:8000]
    assert np.abs(np.correlate(middle, SOUND[:4000])).max() > 0.9 * np.sum(SOUND[:4000] ** 2)


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_is_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    path = folder / f"{name}.m4a"
    with pytest.raises(InputError, match=rf"{path}.*failed with code"):
        read_audio(pipe_of(find_ffmpeg(), str(path)), RATE)
    write_table(tmp_path / "decode.scp", {"s-v-1": path})
    with pytest.raises(InputError, match=rf"^{path}: ffmpeg failed with code"):
        decode_listed(tmp_path / "decode.scp", tmp_path / "flac")
    assert not list((tmp_path / "flac").rglob("*.*"))


def test_a_full_disk_is_not_the_fault_of_the_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho 'Error: No space left on device' >&2; exit 1\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    write_table(tmp_path / "decode.scp", {"s-v-1": folder / "next.m4a"})
    with pytest.raises(OSError, match="No space left on device: '" + flac_path(tmp_path / "flac", "s-v-1")):
        decode_listed(tmp_path / "decode.scp", tmp_path / "flac")
