"""tools/slurm.pl and tools/queue.pl on a real Slurm and a real Grid Engine."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = {"MINI_TRAIN_SPEAKERS": "2", "MINI_TEST_SPEAKERS": "4", "MINI_SESSIONS": "2", "MINI_TRAIN_UTTERANCES": "2",
        "MINI_TEST_UTTERANCES": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip
NUMBER = "${SLURM_ARRAY_JOB_ID:-$JOB_ID}"


def soon(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited for 20 s in vain"
        time.sleep(0.05)


def write_job(folder: Path, script: str) -> list[str]:
    """The words that run a script of bash with the number of the task as $1."""
    (folder / "job.sh").write_text(script)
    return ["JOB=1:4", "log/x.JOB.log", "bash", "job.sh", "JOB"]


def test_array_with_odd_words_in_an_odd_folder(cluster, tmp_path: Path) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    (folder / "path.sh").write_text("export FROM_PATH_SH='so be it'\n")
    words = ["a  JOB", 'it\'s "q"', "$(touch BAD)", "*", "50%", "line\n#$ -l no=1\n#SBATCH --no=1", "x"]
    printf = ["printf", "%s\\0", *words, ">", "out.JOB", "\\;", "printenv", "FROM_PATH_SH", "|", "tr", "b", "B"]
    code, message = cluster.run(folder, "JOB=1:3", "the logs/x JOB.log", *[";" if w == "\\;" else w for w in printf])
    assert (code, message) == (0, "")
    for number in "123":
        expected = [word.replace("JOB", number) for word in words]
        assert (folder / f"out.{number}").read_bytes().decode().split("\0")[:-1] == expected
        log = (folder / f"the logs/x {number}.log").read_text()
        assert "\nso Be it\n# Accounting: time=" in log
        assert re.search(r"# Ended \(code 0\) at .*, elapsed time \d+ seconds\n$", log)
    assert os.listdir(folder / "the logs/q") == ["x .sh"], "sync files are left"
    assert not (folder / "BAD").exists()


def test_failures_and_lost_tasks_are_told(cluster, tmp_path: Path) -> None:
    """Grid Engine would start a task again that ends with 99, and put one aside that ends with 100."""
    target = f"{NUMBER}_3" if cluster.cancel == "scancel" else f"{NUMBER} -t 3"
    job = f"""
echo run $1 >> runs
case $1 in
  1) exit 99 ;;
  2) echo reason; exit 100 ;;
  3) {cluster.cancel} {target}; sleep 60 ;;
  4) kill -9 0 ;;
esac"""
    started = time.monotonic()
    code, message = cluster.run(tmp_path, *write_job(tmp_path, job))
    assert time.monotonic() - started < 30
    assert code == 1
    lines = message.splitlines()
    name = cluster.runner.name
    assert lines[1] == f"{name}: log/x.2.log failed: reason"
    assert lines[2].startswith(f"{name}: log/x.3.log was lost (")
    assert lines[3] == f"{name}: 4 / 4 failed, log is in log/x.*.log"
    assert sorted((tmp_path / "runs").read_text().splitlines()) == ["run 1", "run 2", "run 3", "run 4"]


def test_one_failure_of_three_that_run_one_by_one(cluster, tmp_path: Path) -> None:
    job = write_job(tmp_path, "mkdir lock || exit 1; sleep 0.3; rmdir lock; touch done.$1; test $1 != 2")
    code, message = cluster.run(tmp_path, "--max-jobs-run", "3", "JOB=1:3", "-tc", "1", *job[1:])
    name = cluster.runner.name
    assert code == 1
    assert message.splitlines() == [
        f"{name}: log/x.2.log failed: it says nothing",
        f"{name}: 1 / 3 failed, log is in log/x.*.log",
    ]
    assert len(list(tmp_path.glob("done.*"))) == 3


def test_threads_are_asked_for(cluster, tmp_path: Path) -> None:
    words = ["--num-threads", "2", "x.log", "printenv", "SLURM_CPUS_PER_TASK", "||", "printenv", "NSLOTS"]
    assert cluster.run(tmp_path, *words) == (0, "")
    assert "\n2\n# Accounting: time=0 threads=2\n" in (tmp_path / "x.log").read_text().replace("time=1", "time=0")


def test_what_the_scheduler_refuses_is_told(cluster, tmp_path: Path) -> None:
    code, message = cluster.run(tmp_path, "--gpu", "1", "x.log", "true")
    assert code == 1
    assert "did not take the job" in message
    assert re.search("gres|gpu", message)
    assert not list((tmp_path / "q").iterdir()) or os.listdir(tmp_path / "q") == ["x.sh"]


def test_signal_cancels(cluster, tmp_path: Path) -> None:
    job = write_job(tmp_path, "echo $$ > pid.$1.part; mv pid.$1.part pid.$1; sleep 600")
    process = cluster.popen(tmp_path, "--max-jobs-run", "1", *job)
    soon((tmp_path / "pid.1").exists)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=30)[1]
    assert (process.returncode, "cancelling the array" in message) == (2, True)
    pid = int((tmp_path / "pid.1").read_text())
    soon(lambda: not Path(f"/proc/{pid}").exists())
    assert sorted(path.name for path in tmp_path.glob("pid.*")) == ["pid.1"]
    assert "# Cancelled by signal" in (tmp_path / "log/x.1.log").read_text()
    assert not (tmp_path / "log/x.2.log").exists()


def test_node_that_goes_down(slurm, tmp_path: Path) -> None:
    process = slurm.popen(tmp_path, *write_job(tmp_path, "touch up.$1; test -e stop || sleep 60"))
    soon(lambda: len(list(tmp_path.glob("up.*"))) == 4)
    (tmp_path / "stop").touch()
    slurm.ask("scontrol", "update", "nodename=n1,n2", "state=down", "reason=test")
    message = process.communicate(timeout=30)[1]
    slurm.ask("scontrol", "update", "nodename=n1,n2", "state=resume")
    assert process.returncode == 1
    assert "log/x.1.log was lost (NODE_FAIL" in message
    assert "4 / 4 failed" in message


def copy_of(repository: Path, folder: Path) -> None:
    for part in ("conf", "egs", "local", "tools", "wespeaker_lite"):
        shutil.copytree(repository / part, folder / part)
    for path in [repository / "run.sh", repository / "path.sh", *repository.glob("requirements*.txt")]:
        shutil.copy(path, folder)


@pytest.mark.recipe
def test_stages_of_the_recipe(cluster, repository: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "recipe" not in request.config.option.markexpr:
        pytest.skip("stages 0 to 2 on the cluster take a minute: run by `pytest tests/cluster -m recipe`")
    copy_of(repository, tmp_path)
    words = ["bash", "run.sh", "--stop-stage", "2", "--nj", "2", "--cmd", f"tools/{cluster.runner.name} -tc 2"]
    process = subprocess.Popen(
        words, cwd=tmp_path, env=cluster.environment | TINY, text=True, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        message = process.communicate(timeout=200)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    assert process.returncode == 0, message
    assert "# Ended (code 0)" in (tmp_path / "data/mini/test/log/make_fbank.2.log").read_text()
    assert len((tmp_path / "data/mini/test/feats.scp").read_text().splitlines()) == 8
