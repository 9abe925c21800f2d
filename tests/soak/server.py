"""Runs programs of the recipe as forks of a process that has imported torch: python -m tests.soak.server SOCKET

Otherwise each program imports torch, which takes ten times as long as its work on a tiny corpus. The client is
preloaded/sitecustomize.py.
"""

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

PRELOADED = ("training.job", "scoring.evaluate", "report.report", "report.plots", "extraction.extract", "deploy.cost",
             "corpora.fbank_job", "recipe.experiment")  # fmt: skip


@contextlib.contextmanager
def serving(root: Path) -> Iterator[dict[str, str]]:
    """Serve the sources in `root`; yields the environment variables with which programs use this server."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "socket"
        environment = os.environ | {"PYTHONPATH": f"{root}:{Path(__file__).parents[2]}"}
        server = subprocess.Popen([sys.executable, "-m", "tests.soak.server", path], cwd=root, env=environment)
        while not path.exists():
            if server.poll() is not None:
                sys.exit("the server has ended")
            time.sleep(0.1)
        try:
            yield {"SOAK_SERVER": str(path), "PYTHONPATH": str(Path(__file__).with_name("preloaded"))}
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    """Import the modules that programs need, and wait for requests."""
    for name in PRELOADED:
        __import__(f"wespeaker_lite.{name}")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1] + ".new")
    listener.listen()
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the forks
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            answer(connection)
        connection.close()


def answer(connection: socket.socket) -> None:
    """Run the requested program in this process, and send its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, files, *_ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as request:
        arguments, folder, environment = json.loads(request.read(int.from_bytes(size, "big")))
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    code = 1
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        else:
            code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    main()
