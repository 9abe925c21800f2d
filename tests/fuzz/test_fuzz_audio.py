"""Damaged audio files, through the programs that use a trained model, and through fbank jobs."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tests.deploy.models import make_model
from tests.fuzz.common import damaged, examples, outcome
from wespeaker_lite.bin import embed, make_fbank, verify
from wespeaker_lite.kaldi.tables import write_table

CODECS = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
_HEADER = 120  # bytes of which most of the damage is done


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, bytes]:
    """A model, a good recording, and short recordings of each codec by suffix."""
    make_model(folder / "final.pt")
    samples = np.random.default_rng(0).normal(0, 0.1, 6400)
    soundfile.write(folder / "good.wav", samples, 16000)
    for suffix, (container, subtype) in CODECS.items():
        soundfile.write(folder / f"x.{suffix}", samples, 16000, format=container, subtype=subtype)
    return {suffix: (folder / f"x.{suffix}").read_bytes() for suffix in CODECS}


@st.composite
def recordings(draw: st.DrawFn, content: bytes) -> bytes:
    """Damaged content. Most of the damage is in the header, which may also get an integer of any size."""
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged(content))
    head, rest = content[:_HEADER], content[_HEADER:]
    if draw(st.booleans()):
        return draw(damaged(head)) + rest
    size, place = draw(st.sampled_from([2, 4, 8])), draw(st.integers(0, _HEADER - 8))
    number = draw(st.sampled_from([0, 1, (1 << 8 * size) - 1, 1 << 8 * size - 1]) | st.integers(0, (1 << 8 * size) - 1))
    return head[:place] + number.to_bytes(size, draw(st.sampled_from(["little", "big"]))) + head[place + size :] + rest


def run(main: Callable[[], None], *words: object) -> bool:
    """Whether a program succeeded. If not, it must print one line."""
    before, sys.argv = sys.argv, ["program", *map(str, words)]
    try:
        return outcome(lambda: main() is None) is not None
    finally:
        sys.argv = before


@pytest.mark.parametrize("suffix", CODECS)
def test_damaged_audio_gives_a_score_or_one_line(folder: Path, files: dict[str, bytes], suffix: str) -> None:
    path = folder / f"damaged.{suffix}"

    @examples(12)
    @given(content=recordings(files[suffix]))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        scored = run(verify.main, "--model", folder / "final.pt", folder / "good.wav", path)
        embedded = run(embed.main, "--model", folder / "final.pt", "--out", folder / "x.npz", path)
        assert scored == embedded

    assert run(verify.main, "--model", folder / "final.pt", folder / "good.wav", folder / f"x.{suffix}")
    check()


def test_damaged_audio_is_a_bad_utterance(folder: Path, files: dict[str, bytes]) -> None:
    tables = {f"{suffix}-damaged": folder / f"damaged.{suffix}" for suffix in CODECS}
    write_table(folder / "wav.scp", {"good": folder / "good.wav", **tables})

    @examples(10)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        for suffix, content in files.items():
            (folder / f"damaged.{suffix}").write_bytes(data.draw(recordings(content)))
        assert run(make_fbank.main, "--data", folder, "--out", folder / "feats", "--max-bad", len(CODECS))

    check()
