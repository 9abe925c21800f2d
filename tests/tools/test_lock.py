"""Two runs in one folder: the second names the first, waits for its end, and continues."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest


@pytest.fixture
def start(repository: Path, tmp_path: Path):
    """start(COMMANDS): run commands in bash with lock.sh sourced. Processes that still run at the end are killed."""
    processes: list[subprocess.Popen] = []

    def begin(commands: str, **environment: str) -> subprocess.Popen:
        script = tmp_path / f"run{len(processes)}.sh"
        script.write_text(f"set -euo pipefail\n. {repository}/tools/lock.sh\n{commands}\n")
        process = subprocess.Popen(
            ["bash", str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path,
            env={**os.environ, **environment},
        )  # fmt: skip
        processes.append(process)
        return process

    yield begin
    for process in processes:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def held(start, tmp_path: Path, how: str = "", name: str = "first") -> subprocess.Popen:
    """A run that locks `work` until the file `end` exists."""
    process = start(f"lock work {how}; touch {name}; while [ ! -e end ]; do sleep 0.01; done; touch {name}.ended")
    wait_for(tmp_path / name)
    return process


def test_the_second_waits_and_names_the_first(start, tmp_path: Path) -> None:
    first = held(start, tmp_path)
    second = start("lock work || echo code $?; [ -e first.ended ] && echo after")
    said = second.stdout.readline()
    assert "waiting, work is in use by process" in said
    assert f"process {first.pid} on" in said
    assert "run0.sh" in said
    assert second.poll() is None
    (tmp_path / "end").touch()
    assert second.communicate(timeout=10)[0] == "code 3\nafter\n"


def test_a_free_folder_is_locked_at_once_and_again_by_child_scripts(start) -> None:
    nested = "lock work; lock \"$PWD/work\"; bash -c '. $0; lock work; echo inner' {}/tools/lock.sh"
    root = Path(__file__).parents[2]
    assert start(nested.format(root)).communicate(timeout=10)[0] == "inner\n"


def test_shared_locks_exclude_a_writer(start, tmp_path: Path) -> None:
    held(start, tmp_path, "shared")
    held(start, tmp_path, "shared", name="other")
    writer = start("lock work || true; [ -e first.ended ] && [ -e other.ended ] && echo alone")
    assert "waiting" in writer.stdout.readline()
    (tmp_path / "end").touch()
    assert writer.communicate(timeout=10)[0] == "alone\n"


def test_children_of_a_killed_run_still_hold_the_lock(start, tmp_path: Path) -> None:
    first = start("lock work; bash -c 'touch child; while [ ! -e end ]; do sleep 0.01; done; touch child.ended' & wait")
    wait_for(tmp_path / "child")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second = start("lock work || true; [ -e child.ended ] && echo after")
    assert "waiting" in second.stdout.readline()
    (tmp_path / "end").touch()
    assert second.communicate(timeout=10)[0] == "after\n"


def test_a_lock_ends_with_its_run(start, tmp_path: Path) -> None:
    first = held(start, tmp_path)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert start("lock work; echo free").communicate(timeout=10)[0] == "free\n"


def _lock_without_privileges(repository: Path, folder: Path, how: str = "") -> subprocess.CompletedProcess:
    # Root passes every permission check unless it drops these capabilities.
    plain = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    script = f'. "{repository}/tools/lock.sh"; lock "{folder}" {how} || true; echo held'
    return subprocess.run([*plain, "bash", "-euc", script], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(not shutil.which("setpriv"), reason="root needs setpriv to drop its privileges")
def test_a_folder_of_another_user_can_be_read_and_is_not_written_to(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o555)
    reading = _lock_without_privileges(repository, folder, "shared")
    assert (reading.returncode, reading.stderr) == (0, "")
    assert "without a lock: the folder is not writable" in reading.stdout
    assert reading.stdout.endswith("held\n")
    folder.chmod(0o755)
    (folder / ".lock").write_text("another\n")
    (folder / ".lock").chmod(0o444)
    folder.chmod(0o555)
    reading = _lock_without_privileges(repository, folder, "shared")
    assert (reading.returncode, reading.stdout, reading.stderr) == (0, "held\n", "")
    writing = _lock_without_privileges(repository, folder)
    assert writing.returncode == 1
    assert writing.stderr.count("\n") == 1
    assert "is not writable for" in writing.stderr
    missing = _lock_without_privileges(repository, folder / "new")
    assert missing.returncode == 1
    assert missing.stderr.count("\n") == 1
    assert "Permission denied" in missing.stderr
    folder.chmod(0o755)
