"""Downloads that resume, are checked, and unpack safely; with a server on the loopback interface."""

import gzip
import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.limits import small_files
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora import download as module
from wespeaker_lite.corpora.download import Source, download, fetch_corpus, unpack


class Server(ThreadingHTTPServer):
    """Serves `content` at every path, with faults by its attributes, and records the Range headers."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.cut_after: list[int] = []  # the number of bytes after which each of the next requests is interrupted
        self.codes: list[int] = []  # the status of each of the next requests
        self.knows_ranges = True
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/corpus.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        code = self.server.codes.pop(0) if self.server.codes else 200
        if code != 200:
            self.send_error(code)
            return
        total = len(self.server.content)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.server.knows_ranges else 0
        if start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut_after.pop(0)] if self.server.cut_after else body)

    def log_message(self, *_: object) -> None:
        pass


def make_tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


NOISE = np.random.default_rng(0).bytes(300_000)
ARCHIVE = make_tar({"corpus762/train/wav.scp": b"a WAVE/a.WAV\n", "corpus762/WAVE/a.WAV": NOISE})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(ARCHIVE) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def source(server: Server, **changes: object) -> Source:
    digest = hashlib.sha256(ARCHIVE).hexdigest()
    return Source(
        **{"url": server.url, "size": len(ARCHIVE), "sha256": digest, "attempts": 3, "pause": 0.01, **changes}
    )


def test_a_corpus_is_downloaded_checked_and_unpacked(server: Server, tmp_path: Path) -> None:
    fetch_corpus(source(server), tmp_path / "new" / "corpus")
    assert (tmp_path / "new/corpus/WAVE/a.WAV").read_bytes() == NOISE
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["corpus"]


def test_only_files_that_match_the_pattern_are_unpacked(server: Server, tmp_path: Path) -> None:
    fetch_corpus(source(server), tmp_path / "corpus", keep="*/train/*")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["wav.scp"]


def test_a_pattern_without_matches_keeps_the_archive(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"corpus\.tar\.gz: no file in it fits '\*\.flac'"):
        fetch_corpus(source(server), tmp_path / "corpus", keep="*.flac")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.tar.gz"]


def test_a_broken_connection_resumes(server: Server, tmp_path: Path) -> None:
    server.cut_after = [100_000, 50_000]
    download(source(server), tmp_path / "a.tar.gz")
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert (tmp_path / "a.tar.gz").read_bytes() == ARCHIVE


def test_a_full_disk_is_an_error_and_the_next_run_resumes(server: Server, tmp_path: Path) -> None:
    source = Source(server.url, sha256=hashlib.sha256(server.content).hexdigest())
    path = tmp_path / "corpus.tar.gz"
    with small_files(50), pytest.raises(OSError, match=f"File too large: '{path}.part'"):
        download(source, path)
    download(source, path)
    assert path.read_bytes() == server.content
    assert server.ranges == [None, "bytes=50-"]


def test_a_second_run_resumes_the_first(server: Server, tmp_path: Path) -> None:
    server.cut_after = [1000, 1000]
    with pytest.raises(InputError, match=r"cut at byte 2000 of .*it resumes at byte 2000"):
        download(source(server, attempts=2), tmp_path / "a.tar.gz")
    assert not (tmp_path / "a.tar.gz").exists()
    download(source(server), tmp_path / "a.tar.gz")
    assert server.ranges[-1] == "bytes=2000-"
    assert (tmp_path / "a.tar.gz").read_bytes() == ARCHIVE


def test_a_server_without_ranges_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    server.cut_after = [1000]
    download(source(server), tmp_path / "a.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == ARCHIVE


def test_a_complete_part_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    for size in (len(ARCHIVE), None):
        (tmp_path / "a.tar.gz.part").write_bytes(ARCHIVE)
        download(source(server, size=size), tmp_path / "a.tar.gz")
        assert (tmp_path / "a.tar.gz").read_bytes() == ARCHIVE


def test_a_part_longer_than_the_file_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz.part").write_bytes(ARCHIVE + b"more")
    download(source(server), tmp_path / "a.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == ARCHIVE


def test_temporary_server_errors_are_retried(server: Server, tmp_path: Path) -> None:
    server.codes = [503, 500]
    download(source(server), tmp_path / "a.tar.gz")
    assert len(server.ranges) == 3


def test_a_missing_file_and_a_dead_server_are_errors(server: Server, tmp_path: Path) -> None:
    server.codes = [404]
    with pytest.raises(InputError, match="404"):
        download(source(server), tmp_path / "a.tar.gz")
    assert len(server.ranges) == 1
    with pytest.raises(InputError, match="refused"):
        download(Source("http://127.0.0.1:9/x.tar.gz", attempts=2, pause=0.01), tmp_path / "a.tar.gz")


def test_a_file_of_another_size_is_not_read(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{len(ARCHIVE)} bytes on the server, expected 7"):
        download(source(server, size=7), tmp_path / "a.tar.gz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (ARCHIVE, {"sha256": "0" * 64}, "SHA-256 is .*, expected 0000"),
        (ARCHIVE[:-4] + b"\0\0\0\0", {"sha256": None}, "damaged"),
        (ARCHIVE[:-9], {"sha256": None, "size": None}, "damaged"),
        (b"<html>not found</html>", {"sha256": None, "size": None}, "damaged: Not a gzipped file"),
    ],
    ids=["checksum", "crc", "cut at the source", "a web page"],
)
def test_a_bad_file_is_removed(
    server: Server, tmp_path: Path, content: bytes, changes: dict[str, object], message: str
) -> None:
    server.content = content
    with pytest.raises(InputError, match=message):
        fetch_corpus(source(server, **changes), tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_reported_as_a_network_error(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_append", full)
    with pytest.raises(OSError, match="No space left"):
        download(source(server), tmp_path / "a.tar.gz")
    assert len(server.ranges) == 1


def test_a_folder_with_files_is_not_changed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "mine").write_text("precious")
    with pytest.raises(InputError, match="is not empty"):
        fetch_corpus(source(server), tmp_path / "corpus")
    assert server.ranges == []


@pytest.mark.parametrize("name", ["../escaped", "corpus/../../escaped"])
def test_members_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.tar.gz").write_bytes(make_tar({"corpus/a": b"1", name: b"2"}))
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "in" / "corpus")
    assert {path.name for path in tmp_path.rglob("*")} <= {"a.tar.gz", "in"}


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("corpus/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.addfile(link)
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "corpus")


@pytest.mark.parametrize(
    ("content", "message"),
    [(gzip.compress(b"no tar at all" * 100), "cannot be unpacked"), (make_tar({"a/1": b"", "b/1": b""}), "found 2")],
    ids=["no tar", "two folders"],
)
def test_an_archive_without_one_top_folder_is_refused_and_removed(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        unpack(tmp_path / "a.tar.gz", tmp_path / "corpus")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]
