"""Decode audio that libsndfile cannot read (AAC in m4a) by ffmpeg: in a pipe of wav.scp, or once to FLAC."""

import errno
import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.progress import with_progress
from wespeaker_lite.kaldi.tables import iter_table

log = logging.getLogger(__name__)

# By default, ffmpeg exits with 0 after a truncated file, and reads the standard input of the job.
_QUIET = ("-nostdin", "-v", "error", "-xerror")
# ffmpeg determines the format by content, not by name: a playlist instead of audio could make it read other files or
# the network. By default, ffmpeg refuses an mp4 with a track in another file.
_ONLY_AUDIO = ("-format_whitelist", "mov,aac", "-protocol_whitelist", "file,pipe")


def find_ffmpeg() -> str:
    """Find ffmpeg: on PATH, else in the package imageio-ffmpeg.

    Raises:
        InputError: if there is neither, with what to install.
    """
    if shutil.which("ffmpeg"):
        return "ffmpeg"
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise InputError(
            "m4a needs ffmpeg, and there is none: install it (apt-get install ffmpeg), or run: "
            "tools/install.sh --extras m4a"
        ) from error


def pipe_of(ffmpeg: str, path: str) -> str:
    """The `command |` of wav.scp that decodes a file to 16 bits. It fails on a truncated file."""
    return f"{shlex.join(_read_by(ffmpeg, path))} -f wav -acodec pcm_s16le - |"


def _read_by(ffmpeg: str, path: str) -> list[str]:
    """The beginning of a command that decodes a file. An absolute path cannot be mistaken for a protocol."""
    return [ffmpeg, *_QUIET, *_ONLY_AUDIO, "-i", os.path.abspath(path)]


def flac_path(folder: str | Path, utterance: str) -> str:
    """The file of an utterance: id00012/21Uxsk56VDQ/00001.flac for id00012-21Uxsk56VDQ-00001."""
    speaker, _, rest = utterance.partition("-")
    return f"{folder}/{speaker}/{'/'.join(rest.rsplit('-', 1))}.flac"


def decode_listed(scp: str | Path, folder: str | Path, part: int = 1, parts: int = 1) -> int:
    """Decode the files of an scp, its lines `part`, `part + parts` ..., to FLAC in `folder`. Existing files are kept.

    Returns:
        The number of files decoded in this call.

    Raises:
        InputError: at the end, if files cannot be decoded.
        OSError: naming the file, if the disk is full.
    """
    ffmpeg, faults, done = find_ffmpeg(), [], 0
    to_do = list(_to_do(scp, folder, part, parts))
    for flac, source in with_progress(to_do, len(to_do), "files"):
        fault = _decode(ffmpeg, source, Path(flac))
        done += not fault
        if fault:
            faults.append(f"{source}: {fault}")
            log.error("%s", faults[-1])
    if faults:
        raise InputError(f"{faults[0]} ({len(faults)} such, {done} decoded); replace or remove the file, and run again")
    return done


def _to_do(scp: str | Path, folder: str | Path, part: int, parts: int) -> Iterator[tuple[str, str]]:
    for number, utterance, source in iter_table(scp):
        flac = flac_path(folder, utterance)
        if number % parts == part % parts and not _is_newer(flac, source):
            yield flac, source


def _is_newer(flac: str, source: str) -> bool:
    try:
        return os.stat(flac).st_mtime_ns >= os.stat(source).st_mtime_ns
    except FileNotFoundError:
        return False


def _decode(ffmpeg: str, source: str, flac: Path) -> str:
    """Decode one file, which appears whole or not at all. Return ffmpeg's error message, or an empty text.

    Raises:
        OSError: if the disk is full.
    """
    flac.parent.mkdir(parents=True, exist_ok=True)
    temporary = flac.with_name(f".{flac.name}.{os.getpid()}.tmp")
    command = [*_read_by(ffmpeg, source), "-y", "-f", "flac", "-sample_fmt", "s16", str(temporary)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0:
            os.replace(temporary, flac)
            return ""
    finally:
        temporary.unlink(missing_ok=True)
    words = done.stderr.decode(errors="replace").strip().splitlines()
    if any(os.strerror(errno.ENOSPC) in word for word in words):  # not a fault of the file: all others would fail too
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(flac))
    return f"ffmpeg failed with code {done.returncode}" + (f": {words[-1]}" if words else "")
