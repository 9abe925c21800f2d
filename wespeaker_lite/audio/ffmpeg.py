"""Audio that libsndfile cannot read (AAC in m4a), through ffmpeg: in a pipe of wav.scp, or decoded once to FLAC."""

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

# ffmpeg by itself ends with 0 after a cut file; a job's standard input is none of its business.
_QUIET = ("-nostdin", "-v", "error", "-xerror")
# What a file is, ffmpeg tells by its content, whatever its name: a playlist in place of audio would have it read other
# files, or from the network. An mp4 of which a track lies in another file is refused by ffmpeg's own default.
_ONLY_AUDIO = ("-format_whitelist", "mov,aac", "-protocol_whitelist", "file,pipe")


def find_ffmpeg() -> str:
    """Find ffmpeg: the one on PATH, else that of the wheel imageio-ffmpeg.

    Raises:
        InputError: saying what to install, where there is neither.
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
    """The `command |` of wav.scp that decodes a file to 16 bits; a cut file makes it fail."""
    return f"{shlex.join(_read_by(ffmpeg, path))} -f wav -acodec pcm_s16le - |"


def _read_by(ffmpeg: str, path: str) -> list[str]:
    """The beginning of a command that decodes a file; an absolute path is never taken for a protocol."""
    return [ffmpeg, *_QUIET, *_ONLY_AUDIO, "-i", os.path.abspath(path)]


def flac_path(folder: str | Path, utterance: str) -> str:
    """Where an utterance goes: id00012-21Uxsk56VDQ-00001 to id00012/21Uxsk56VDQ/00001.flac."""
    speaker, _, rest = utterance.partition("-")
    return f"{folder}/{speaker}/{'/'.join(rest.rsplit('-', 1))}.flac"


def decode_listed(scp: str | Path, folder: str | Path, part: int = 1, parts: int = 1) -> int:
    """Decode to FLAC in `folder` what an scp lists: its lines `part`, `part + parts` ...; what is there is kept.

    Returns:
        How many files were decoded now.

    Raises:
        InputError: naming those that cannot be decoded, at the end, when all others are done.
        OSError: naming the file, where the disk is full.
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
    """Decode one file, which then appears whole; return ffmpeg's complaint, if any.

    Raises:
        OSError: where the disk is full.
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
    if any(os.strerror(errno.ENOSPC) in word for word in words):  # no fault of the file, and none is the next
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(flac))
    return f"ffmpeg failed with code {done.returncode}" + (f": {words[-1]}" if words else "")
