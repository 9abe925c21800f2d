"""Download corpora from public servers: with resume, verification and safe unpacking."""

import gzip
import hashlib
import http.client
import logging
import os
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tqdm import tqdm

from wespeaker_lite.core.errors import InputError

log = logging.getLogger(__name__)

CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True)
class Source:
    """A file on a server, with its size and digest if known."""

    url: str
    size: int | None = None  # bytes
    sha256: str | None = None
    attempts: int = 5
    pause: float = 2.0  # seconds before the second attempt; doubled before each further one


def fetch_corpus(source: Source, folder: str | Path, keep: str = "*") -> None:
    """Download an archive, verify it, unpack its only top folder as `folder`, and remove the archive.

    Only files whose path in the archive matches the shell pattern `keep` are unpacked. An interrupted download is
    resumed.

    Raises:
        InputError: if `folder` is not empty, the server refuses or keeps failing, or the archive is not the expected
            one, is damaged, or would write outside of `folder`.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; remove it to download the corpus into it")
    archive = folder.with_name(f"{folder.name}.tar.gz")
    if not archive.exists():
        download(source, archive)
    unpack(archive, folder, keep)
    archive.unlink()


def download(source: Source, path: Path) -> None:
    """Download to `path`.part, resuming an earlier attempt, verify the file, and move it to `path`.

    Raises:
        InputError: if the server refuses or keeps failing, or the file is damaged or not the expected one.
    """
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, source.attempts + 1):
        try:
            _continue(source, part)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise InputError(f"{source.url}: {error}") from error
            if not isinstance(
                error, urllib.error.URLError | TimeoutError | ConnectionError | http.client.HTTPException
            ):
                raise OSError(error.errno, error.strerror, error.filename or str(part)) from error  # not the network
            if attempt == source.attempts:
                raise InputError(f"{source.url}: {error}; run again: it resumes at byte {_size(part)}") from error
            log.warning("%s: %s; resuming at byte %d", source.url, error, _size(part))
            time.sleep(source.pause * 2 ** (attempt - 1))
    _check(source, part)
    os.replace(part, path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _continue(source: Source, part: Path) -> None:
    """Request the missing bytes, and append them."""
    have = _size(part)
    if have and have == source.size:
        return
    request = urllib.request.Request(source.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # range not satisfiable: the part is complete, or of another file
            raise
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if total != str(have):
            part.unlink()
            raise ConnectionError("the file on the server is shorter than what is here; starting again") from error
        return
    with response:
        if response.status != 206:
            have = 0
        total = have + int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
        if source.size and total and total != source.size:
            raise InputError(f"{source.url}: {total} bytes on the server, expected {source.size}")
        _append(response, part, have, total)


def _append(response: http.client.HTTPResponse, part: Path, have: int, total: int | None) -> None:
    """Copy a response to `part`, after its first `have` bytes."""
    with (
        open(part, "r+b" if have else "wb") as file,
        tqdm(total=total, initial=have, unit="B", unit_scale=True, disable=None) as bar,
    ):
        file.seek(have)
        while chunk := response.read(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
            have += len(chunk)
            if not sys.stderr.isatty() and have // (50 * CHUNK) > (have - len(chunk)) // (50 * CHUNK):
                log.info("%s: %d of %s bytes", part, have, total or "?")
        file.flush()
        os.fsync(file.fileno())
    if total is not None and have < total:  # http.client does not report a truncated body
        raise ConnectionError(f"the connection was cut at byte {have} of {total}")


def _check(source: Source, part: Path) -> None:
    """Verify size and SHA-256, if known, and the checksum of a .gz. A bad file is removed."""
    size, digest, fault = _size(part), hashlib.sha256(), None
    is_gzip = part.name.removesuffix(".part").endswith(".gz")
    with open(part, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if source.size and size != source.size:
        fault = f"{size} bytes, expected {source.size}"
    elif source.sha256 and digest.hexdigest() != source.sha256:
        fault = f"SHA-256 is {digest.hexdigest()}, expected {source.sha256}"
    elif is_gzip:
        fault = _gzip_fault(part)
    if fault:
        part.unlink()
        raise InputError(f"{source.url}: {fault}; the download was removed, run again")
    checks = ["size"] * bool(source.size) + ["SHA-256"] * bool(source.sha256) + ["gzip CRC"] * is_gzip
    log.info("%s: verified by %s; SHA-256 %s", source.url, ", ".join(checks) or "length", digest.hexdigest())


def _gzip_fault(path: Path) -> str | None:
    try:
        with gzip.open(path) as file:
            while file.read(CHUNK):
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return f"damaged: {error}"
    return None


def unpack(archive: Path, folder: Path, keep: str = "*") -> None:
    """Unpack the only top folder of a tar as `folder`, whole or not at all.

    Only files whose path in the tar matches the shell pattern `keep` are unpacked.

    Raises:
        InputError: if a member would be outside of the folder, is a link or a device, no file matches, or the tar is
            damaged or does not have exactly one folder.
    """

    def chosen(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo | None:
        if not (member.isfile() or member.isdir()):  # before Python 3.11.13, links can evade the filter
            raise tarfile.TarError(f"{member.name} is neither a file nor a folder")
        safe = tarfile.data_filter(member, place)
        return safe if member.isdir() or fnmatchcase(member.name, keep) else None

    temporary = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    log.info("%s: unpacking", archive)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter=chosen)
        if not any(path.is_file() for path in temporary.rglob("*")):
            raise InputError(f"{archive}: no file in it fits {keep!r}")
        tops = [path for path in temporary.iterdir() if path.is_dir()]
        if len(tops) != 1:
            raise InputError(f"{archive}: expected one folder in it, found {len(tops)}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(tops[0], folder)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        fault = " ".join(str(error).split())
        raise InputError(f"{archive}: cannot be unpacked: {fault}; remove it and run again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
