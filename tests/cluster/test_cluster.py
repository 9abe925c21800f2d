"""tools/slurm.pl and tools/queue.pl on a real Slurm and a real Grid Engine."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.cluster.schedulers import descendants, replaced, start_execd, wait_until

NUMBER = "${SLURM_ARRAY_JOB_ID:-$JOB_ID}"


def write_job(folder: Path, script: str) -> list[str]:
    """The arguments that run a bash script with the number of the task as $1."""
    (folder / "job.sh").write_text(script)
    return ["JOB=1:4", "log/x.JOB.log", "bash", "job.sh", "JOB"]


def test_array_with_special_characters_in_words_and_folder(cluster, tmp_path: Path) -> None:
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


def test_failures_and_lost_tasks_are_reported(cluster, tmp_path: Path) -> None:
    """Grid Engine would restart a task that exits with 99, and hold one that exits with 100."""
    cancel = f"scancel {NUMBER}_3" if cluster.is_slurm else f"qdel {NUMBER} -t 3"
    job = f"""
echo run $1 >> runs
case $1 in
  1) exit 99 ;;
  2) echo reason; exit 100 ;;
  3) {cancel}; sleep 600 ;;
  4) kill -9 0 ;;
esac"""
    code, message = cluster.run(tmp_path, *write_job(tmp_path, job))
    assert code == 1
    lines = message.splitlines()
    name = cluster.runner.name
    assert lines[1] == f"{name}: log/x.2.log failed: reason"
    assert re.match(rf"{name}: log/x.3.log (failed \(CANCELLED\)|was lost \(.*\)): ", lines[2])
    assert lines[3] == f"{name}: 4 / 4 failed, log is in log/x.*.log"
    assert sorted((tmp_path / "runs").read_text().splitlines()) == ["run 1", "run 2", "run 3", "run 4"]


def test_one_failure_of_three_that_run_one_by_one(cluster, tmp_path: Path) -> None:
    job = write_job(tmp_path, "mkdir lock || exit 1; sleep 0.3; rmdir lock; touch done.$1; test $1 != 2")
    code, message = cluster.run(tmp_path, "--max-jobs-run", "3", "JOB=1:3", "-tc", "1", *job[1:])
    name = cluster.runner.name
    assert code == 1
    assert message.splitlines() == [
        f"{name}: log/x.2.log failed: no output",
        f"{name}: 1 / 3 failed, log is in log/x.*.log",
    ]
    assert len(list(tmp_path.glob("done.*"))) == 3


def test_threads_are_requested(cluster, tmp_path: Path) -> None:
    words = ["--num-threads", "2", "x.log", "printenv", "SLURM_CPUS_PER_TASK", "||", "printenv", "NSLOTS"]
    assert cluster.run(tmp_path, *words) == (0, "")
    assert "\n2\n# Accounting: time=0 threads=2\n" in (tmp_path / "x.log").read_text().replace("time=1", "time=0")


def test_gpus_are_allocated_or_refused(cluster, tmp_path: Path) -> None:
    words = ["x.log", "printenv", "CUDA_VISIBLE_DEVICES", "||", "printenv", "QUEUE"]
    assert cluster.run(tmp_path, "--gpu", "1", *words) == (0, "")
    assert (tmp_path / "x.log").read_text().splitlines()[3] == ("0" if cluster.is_slurm else "g.q")
    verify = [] if cluster.is_slurm else ["-w", "e"]  # otherwise Grid Engine waits for a host with two GPUs
    code, message = cluster.run(tmp_path, *verify, "--gpu", "2", *words)
    assert code == 1
    assert "did not take the job" in message
    assert re.search("node configuration is not available|no suitable queues", message)
    assert os.listdir(tmp_path / "q") == ["x.sh"]


def test_out_of_memory(cluster, tmp_path: Path) -> None:
    limit = ["--mem", "100M"] if cluster.is_slurm else ["-l", "h_vmem=200M"]
    words = ["x.log", "python", "-S", "-c", "import time; taken = b'x' * (300 << 20); time.sleep(600)"]
    code, message = cluster.run(tmp_path, *limit, *words)
    assert code == 1
    reason = "(?i:exceeded (job )?memory limit)" if cluster.is_slurm else "MemoryError"
    assert re.match(rf"{cluster.runner.name}: x.log (failed|incomplete|was lost \(.*\)): .*{reason}.*\n", message)
    assert message.endswith(": job failed, log is in x.log\n")


@pytest.fixture
def stoppable(repository: Path, tmp_path: Path) -> list[str]:
    """The arguments for a program that stops as training does, and a second command, which must not run."""
    (tmp_path / "job.py").write_text(
        f"""
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("stopping", "{repository}/wespeaker_lite/training/stopping.py")
stopping = importlib.util.module_from_spec(spec)  # without the package, which takes seconds to import
spec.loader.exec_module(stopping)
with stopping.StopRequest() as request:
    pathlib.Path("running").touch()
    while request.signal is None:
        time.sleep(0.05)
time.sleep(0.5)
pathlib.Path("checkpoint").touch()
sys.exit(f"{{request.signal.name}}: stopping")
"""
    )
    return ["x.log", "python", "-S", "job.py", ";", "touch", "another"]


def test_at_its_time_limit_a_job_can_still_write(cluster, stoppable: list[str], tmp_path: Path) -> None:
    limit = ["--time", "1" if cluster.is_slurm else "2"]  # Slurm's are minutes
    process = cluster.popen(tmp_path, *limit, *stoppable)
    wait_until((tmp_path / "running").exists)
    number = cluster.ask("squeue", "-h", "-o", "%A").strip() if cluster.is_slurm else ""
    if number:
        cluster.ask("scontrol", "update", f"jobid={number}", "endtime=now+1")
    message = process.communicate(timeout=200)[1]
    assert process.returncode == 1
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "job.py", "q", "running", "x.log"]
    assert re.search("# Ended .code 143.", (tmp_path / "x.log").read_text())
    reason = "TIMEOUT, TimeLimit" if number else "qmaster enforced h_rt, h_cpu, or h_vmem limit"
    assert f"x.log failed ({reason}): SIG{'TERM' if number else 'USR2'}: stopping\n" in message


def test_a_warning_before_the_time_limit_reaches_the_job(cluster, stoppable: list[str], tmp_path: Path) -> None:
    """sbatch's --signal=B:USR1@60 sends it only to the script, and Grid Engine's s_rt to the whole job."""
    process = cluster.popen(tmp_path, *([] if cluster.is_slurm else ["-l", "s_rt=2"]), *stoppable)
    wait_until((tmp_path / "running").exists)
    if cluster.is_slurm:
        cluster.ask("scancel", "--batch", "--signal=USR1", "--user=root")
    message = process.communicate(timeout=200)[1]
    assert process.returncode == 1
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "job.py", "q", "running", "x.log"]
    assert "x.log failed: SIGUSR1: stopping\n" in message


def test_array_cancelled_from_outside(cluster, tmp_path: Path) -> None:
    process = cluster.popen(tmp_path, "-tc", "2", *write_job(tmp_path, "touch up.$1; sleep 600"))
    wait_until(lambda: len(list(tmp_path.glob("up.*"))) == 2)
    cluster.cancel_all()
    message = process.communicate(timeout=200)[1]
    assert process.returncode == 1
    assert f"{cluster.runner.name}: 4 / 4 failed, log is in log/x.*.log\n" in message
    assert not list(tmp_path.glob("up.[34]"))


def test_signal_cancels(cluster, tmp_path: Path) -> None:
    job = write_job(tmp_path, "echo $$ > pid.$1.part; mv pid.$1.part pid.$1; sleep 600")
    process = cluster.popen(tmp_path, "--max-jobs-run", "1", *job)
    wait_until((tmp_path / "pid.1").exists)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=200)[1]
    assert (process.returncode, "cancelling the array" in message) == (2, True)
    pid = int((tmp_path / "pid.1").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert sorted(path.name for path in tmp_path.glob("pid.*")) == ["pid.1"]
    assert "# Cancelled by signal" in (tmp_path / "log/x.1.log").read_text()
    assert not (tmp_path / "log/x.2.log").exists()


def test_node_that_goes_down(slurm, tmp_path: Path) -> None:
    process = slurm.popen(tmp_path, *write_job(tmp_path, "test ! -e stop || exit; touch up.$1; sleep 600"))
    wait_until(lambda: len(list(tmp_path.glob("up.*"))) == 4)
    (tmp_path / "stop").touch()
    slurm.ask("scontrol", "update", "nodename=n1,n2", "state=down", "reason=test")
    message = process.communicate(timeout=200)[1]
    slurm.ask("scontrol", "update", "nodename=n1,n2", "state=resume")
    assert process.returncode == 1
    assert re.search(r"log/x.1.log (failed|was lost) \(NODE_FAIL", message)
    assert "4 / 4 failed" in message


@pytest.mark.recipe
def test_host_that_goes_down(gridengine, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Grid Engine lists the tasks of that host as running until the host is back."""
    if "recipe" not in request.config.option.markexpr:
        pytest.skip("Grid Engine takes minutes to miss a host: run by `pytest tests/cluster -m recipe`")
    conf = gridengine.ask("qconf", "-sconf").split("\n", 1)[1]
    gridengine.change("-Mconf", "global", replaced(conf, load_report_time="0:0:1", max_unheard="0:0:10"))
    job = write_job(tmp_path, "touch up.$1; sleep 600")
    process = gridengine.popen(tmp_path, "JOB=1:2", *job[1:])
    wait_until(lambda: len(list(tmp_path.glob("up.*"))) == 2)
    execd = gridengine.daemons[-1]
    victims = descendants(execd.pid)
    execd.kill()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    message = process.communicate(timeout=600)[1]
    gridengine.change("-Mconf", "global", conf)
    start_execd(gridengine)
    assert process.returncode == 1
    assert "log/x.1.log was lost (Grid Engine gets no answer from its host)" in message


def numbers_of_jobs(cluster) -> list[str]:
    """The numbers of the unfinished jobs."""
    said = cluster.ask("squeue", "-h", "-o", "%F") if cluster.is_slurm else cluster.ask("qstat")
    return sorted({line.split()[0] for line in said.splitlines() if re.match(r"\s*\d", line)})


def test_a_job_that_a_killed_runner_left_ends_before_the_next_starts(cluster, tmp_path: Path) -> None:
    """A job of another folder with the same log keeps running."""
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    words = ["x.log", "touch", "up", ";", "test", "-e", "again", "||", "sleep", "600"]
    theirs = cluster.popen(tmp_path / "theirs", *words)
    mine = cluster.popen(tmp_path / "mine", *words)
    wait_until(lambda: all((tmp_path / name / "up").exists() for name in ("mine", "theirs")))
    assert len(numbers_of_jobs(cluster)) == 2
    mine.kill()
    mine.wait()
    (tmp_path / "mine/again").touch()
    code, message = cluster.run(tmp_path / "mine", *words)
    assert code == 0
    assert re.fullmatch(rf"{cluster.runner.name}: job \d+ \(x_[0-9a-f]+\) is left from .*; cancelling it\n", message)
    assert theirs.poll() is None
    theirs.send_signal(signal.SIGTERM)
    assert "cancelling the array" in theirs.communicate(timeout=100)[1]
    wait_until(lambda: not numbers_of_jobs(cluster))


def test_a_wrong_job_number_does_not_affect_other_jobs(cluster, tmp_path: Path) -> None:
    """A wrapper prints the number of a job with another name."""
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    theirs = cluster.popen(tmp_path / "theirs", "x.log", "touch", "up", ";", "sleep", "600")
    wait_until((tmp_path / "theirs/up").exists)
    (number,) = numbers_of_jobs(cluster)
    submit = "sbatch --export=PATH" if cluster.is_slurm else "qsub -v PATH -cwd -S /bin/bash"
    wrapper = tmp_path / "mine/wrapper"
    wrapper.write_text(f'#!/bin/bash\n{submit} "$@"\necho {number}\n')
    wrapper.chmod(0o755)
    (tmp_path / "mine/own.conf").write_text(f"command {wrapper}\n")
    mine = cluster.popen(tmp_path / "mine", "--config", "own.conf", "x.log", "touch", "up", ";", "sleep", "600")
    wait_until((tmp_path / "mine/up").exists)
    mine.send_signal(signal.SIGTERM)
    message = mine.communicate(timeout=100)[1]
    assert (mine.returncode, f"cancelling the array {number}" in message) == (2, False)
    assert numbers_of_jobs(cluster) == [number]
    assert theirs.poll() is None
    theirs.send_signal(signal.SIGTERM)
    theirs.communicate(timeout=100)
