"""tools/run.pl: the words and GPUs of its jobs, their logs, and its exit code."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings

from tests.tools.runners import AWKWARD_WORDS, WORDS, reset_signals

RUN_PL = Path(__file__).resolve().parents[2] / "tools" / "run.pl"


def run_pl(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(RUN_PL), *words],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited for 30 s in vain"
        time.sleep(0.01)


def add_command(folder: Path, name: str, script: str) -> str:
    """Write a command to `folder`/bin, and return a PATH with this folder first."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/bash\n" + script)
    path.chmod(0o755)
    return f"{path.parent}:{os.environ['PATH']}"


@settings(max_examples=10, deadline=None)
@given(WORDS)
@example(AWKWARD_WORDS)
def test_words_reach_the_command_unchanged(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    folder = tmp_path_factory.mktemp("with space")
    result = run_pl(folder, "the log.txt", "printf", "%s\\0", *words, ">", "out")
    assert result.returncode == 0, result.stderr
    assert (folder / "out").read_bytes() == b"".join(word.encode() + b"\0" for word in words)


def test_only_operators_have_a_special_meaning(tmp_path: Path) -> None:
    words = ["echo", "a  b", 'it\'s "q"', "$(touch BAD)", "*", "<unk>", "|", "tr", "a-z", "A-Z", ">", "out"]
    words += [";", "V=x y", "printenv", "V", ">>out", "2>&1", "&&", "ls", "missing", "2>err", "||", "true"]
    result = run_pl(tmp_path, "log", *words)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out").read_text() == 'A  B IT\'S "Q" $(TOUCH BAD) * <UNK>\nx y\n'
    assert "missing" in (tmp_path / "err").read_text()
    assert not (tmp_path / "BAD").exists()


def test_the_log_has_command_times_and_code(tmp_path: Path) -> None:
    assert run_pl(tmp_path, "a/b/x.log", "printf", "no newline", ";", "exit", "7").returncode == 1
    patterns = [
        r"# printf 'no newline' ; exit 7",
        r"# Started at \w{3} .*",
        r"#",
        r"no newline",
        r"# Accounting: time=\d+ threads=1",
        r"# Ended \(code 7\) at \w{3} .*, elapsed time \d+ seconds",
    ]
    lines = (tmp_path / "a/b/x.log").read_text().splitlines()
    assert len(lines) == len(patterns)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line)


def test_command_of_two_lines_stays_a_comment_of_the_log(tmp_path: Path) -> None:
    run_pl(tmp_path, "log", "echo", "one\ntwo")
    assert (tmp_path / "log").read_text().startswith("# echo 'one\n# two'\n# Started at")


@pytest.mark.parametrize(
    ("words", "code"),
    [(["false", "|", "true"], 1), (["echo", "|"], 2), (["no such"], 127), (["bash", "-c", "kill -9 $$"], 137)],
)
def test_no_failure_is_lost(tmp_path: Path, words: list[str], code: int) -> None:
    assert run_pl(tmp_path, "log", *words).returncode == 1
    assert f"# Ended (code {code})" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    "options",
    [
        ["--mem", "2G", "JOB=1:3"],
        ["JOB=1:3", "--num-threads", "4", "-pe", "smp", "5", "-l", "ram_free=1G"],
        ["-q", "all.q", "JOB=1:3", "-V", "--max-jobs-run", "2"],
        ["n_1=1:3"],
    ],
)
def test_options_may_be_before_or_after_the_range(tmp_path: Path, options: list[str]) -> None:
    name = "n_1" if "n_1=1:3" in options else "JOB"
    result = run_pl(tmp_path, *options, f"{name}/{name}.log", "echo", f"<{name}-{name}>")
    assert (result.returncode, result.stderr) == (0, "")
    for number in "123":
        assert f"\n<{number}-{number}>\n" in (tmp_path / number / f"{number}.log").read_text()


def test_single_number_is_a_range_of_one(tmp_path: Path) -> None:
    assert run_pl(tmp_path, "JOB=7", "log", "test", "JOB", "=", "7").returncode == 0


def test_an_unknown_option_is_ignored_with_a_message(tmp_path: Path) -> None:
    result = run_pl(tmp_path, "--max-job-run", "3", "log", "true")
    assert result.returncode == 0
    assert "--max-job-run 3" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["JOB=1:3", "x.log", "true"], "JOB must be in the path of the log"),
        (["JOB=0:3", "x.JOB.log", "true"], "starts below 1"),
        (["JOB=3:2", "x.JOB.log", "true"], "ends before it starts"),
        (["JOB=1:b", "x.JOB.log", "true"], "expected a range like JOB=1:4"),
        (["JOB=1:3", "x.JOB.log"], "expected a log file and a command"),
        (["--max-jobs-run", "0", "x.log", "true"], "--max-jobs-run needs a whole number above 0"),
        (["--pick", "some", "x.log", "true"], "--pick needs all, failed or incomplete"),
        (["--mem", "--gpu", "1", "x.log", "true"], "--mem needs a value"),
        (["--mem"], "--mem needs a value"),
        (["file/x.log", "true"], "cannot make the folder of file/x.log"),
    ],
)
def test_wrong_lines_start_nothing(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "file").touch()
    result = run_pl(tmp_path, *words)
    assert result.returncode == 1
    assert message in result.stderr
    assert os.listdir(tmp_path) == ["file"]


def test_all_jobs_run_even_if_one_fails(tmp_path: Path) -> None:
    command = ["touch", "done.JOB", ";", "echo", "reason JOB", ";", "test", "JOB", "!=", "2"]
    result = run_pl(tmp_path, "--max-jobs-run", "1", "JOB=1:3", "log/x.JOB.log", *command)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "run.pl: log/x.2.log failed: reason 2",
        "run.pl: 1 / 3 failed, log is in log/x.*.log",
    ]
    assert {path.name for path in tmp_path.glob("done.*")} == {"done.1", "done.2", "done.3"}


def test_single_failure_names_its_log(tmp_path: Path) -> None:
    result = run_pl(tmp_path, "JOB=5:5", "log/x.JOB.log", "false")
    assert result.stderr.splitlines()[-1] == "run.pl: job failed, log is in log/x.5.log"


def most_at_once(folder: Path, limit: int, *options: str, **environment: str) -> int:
    """Run six jobs that wait until `limit` jobs run at once, or fail. Returns the largest number at once."""
    job = f"""
touch running.$1; tries=0
until [ -e enough ]; do
  count=$(ls running.* | wc -l); echo $count >> counts
  [ $count -lt {limit} ] || touch enough
  [ $((tries += 1)) -lt 1000 ] || exit 1
  sleep 0.01
done
sleep 0.1; ls running.* | wc -l >> counts; rm running.$1
"""
    (folder / "job.sh").write_text(job)
    result = run_pl(folder, *options, "JOB=1:6", "log.JOB", "bash", "job.sh", "JOB", **environment)
    assert result.returncode == 0, result.stderr
    return max(map(int, (folder / "counts").read_text().split()))


def test_smallest_limit_counts(tmp_path: Path) -> None:
    assert most_at_once(tmp_path, 2, "--max-jobs-run", "4", "-tc", "2", "--max-jobs-run", "3") == 2


def test_default_limit_is_the_number_of_cpus(tmp_path: Path) -> None:
    # The real nproc also prints 1 with OMP_NUM_THREADS=1.
    path = add_command(tmp_path, "nproc", "echo ${OMP_NUM_THREADS:-3}")
    assert most_at_once(tmp_path, 3, PATH=path, OMP_NUM_THREADS="1") == 3


GPU_JOB = 'own=$CUDA_VISIBLE_DEVICES; echo "gpu=$own"; mkdir "lock.$own" && sleep 0.1 && rmdir "lock.$own"'


def gpus_of_jobs(folder: Path) -> list[str]:
    return [re.search(r"^gpu=(.*)$", path.read_text(), re.MULTILINE)[1] for path in sorted(folder.glob("log.*"))]


def test_every_job_has_a_gpu_of_its_own(tmp_path: Path) -> None:
    options = ["--gpu", "1", "--max-jobs-run", "4", "JOB=1:5", "log.JOB"]
    result = run_pl(tmp_path, *options, "bash", "-c", GPU_JOB, CUDA_VISIBLE_DEVICES="5,7")
    assert result.returncode == 0, result.stderr
    assert gpus_of_jobs(tmp_path)[:2] == ["5", "7"]
    assert set(gpus_of_jobs(tmp_path)) == {"5", "7"}


DRIVER = """case $1 in
  -L) printf 'GPU 0: H100 (UUID: GPU-a)\\nGPU 1: H100 (UUID: GPU-b)\\nGPU 2: H100 (UUID: GPU-c)\\n';;
  --query-gpu=*) printf 'GPU-a, 4\\nGPU-b, 0\\nGPU-c, 530\\n';;
esac
"""


def run_with_driver(folder: Path, driver: str, gpus: int) -> subprocess.CompletedProcess[str]:
    """Run two jobs with `gpus` GPUs each, with this script as nvidia-smi and without CUDA_VISIBLE_DEVICES."""
    path = add_command(folder, "nvidia-smi", driver)
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"} | {"PATH": path}
    words = [str(RUN_PL), "--gpu", str(gpus), "JOB=1:2", "log.JOB", "bash", "-c", GPU_JOB]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_gpus_are_listed_by_the_driver(tmp_path: Path) -> None:
    assert run_with_driver(tmp_path, DRIVER, 2).returncode == 0
    assert gpus_of_jobs(tmp_path) == ["0,1", "2,0"]


@pytest.mark.parametrize("use", ["--query-compute-apps=*) echo GPU-a;;", "--query-gpu=*) echo GPU-a, 20000;;"])
def test_gpus_that_others_use_are_not_used(tmp_path: Path, use: str) -> None:
    driver = DRIVER.replace("case $1 in", f"case $1 in\n  {use}")
    assert run_with_driver(tmp_path, driver, 1).returncode == 0
    assert set(gpus_of_jobs(tmp_path)) <= {"1", "2"}
    refused = run_with_driver(tmp_path, driver, 3)
    assert refused.returncode == 1
    assert "has 2 free GPUs; others use 0 (set CUDA_VISIBLE_DEVICES=0" in refused.stderr


def test_mig_instances_are_used_as_gpus(tmp_path: Path) -> None:
    instances = "".join(rf"  MIG 1g.10gb     Device  {n}: (UUID: MIG-{n})\n" for n in (0, 1))
    driver = DRIVER.replace("GPU 1:", f"{instances}GPU 1:")
    assert run_with_driver(tmp_path, driver, 2).returncode == 0
    assert gpus_of_jobs(tmp_path) == ["MIG-0,MIG-1", "1,2"]


@pytest.mark.parametrize(
    ("visible", "given"),
    [("MIG-5-a,MIG-5-b", ["MIG-5-a", "MIG-5-b"]), ("0, 1,-1,3", ["0", "1"]), ("GPU-8f,2", ["GPU-8f", "2"])],
)
def test_given_gpus_are_used_by_their_names(tmp_path: Path, visible: str, given: list[str]) -> None:
    words = ["--gpu", "1", f"JOB=1:{len(given)}", "log.JOB", "bash", "-c", GPU_JOB]
    assert run_pl(tmp_path, *words, CUDA_VISIBLE_DEVICES=visible).returncode == 0
    assert gpus_of_jobs(tmp_path) == given


@pytest.mark.parametrize("nothing", ["NoDevFiles", "-1", " "])
def test_values_for_no_gpu_give_none(tmp_path: Path, nothing: str) -> None:
    result = run_pl(tmp_path, "--gpu", "1", "log", "true", CUDA_VISIBLE_DEVICES=nothing)
    assert result.returncode == 1
    assert "has 0 free GPUs" in result.stderr


def test_a_missing_gpu_is_an_error(tmp_path: Path) -> None:
    result = run_pl(tmp_path, "--gpu", "1", "log", "true", CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 1
    assert "has 0 free GPUs" in result.stderr
    assert run_pl(tmp_path, "--gpu", "2", "log", "true", CUDA_VISIBLE_DEVICES="4").returncode == 1
    assert run_pl(tmp_path, "--gpu", "0", "log", "true", CUDA_VISIBLE_DEVICES="").returncode == 0


@pytest.mark.parametrize(
    ("pick", "again", "failures"), [("all", "1234", ""), ("failed", "234", ""), ("incomplete", "34", "1 / 4 failed")]
)
def test_pick_selects_by_the_logs_of_the_last_run(tmp_path: Path, pick: str, again: str, failures: str) -> None:
    command = ["JOB=1:4", "log.JOB", "touch", "ran.JOB", ";", "test", "!", "-e", "fail.JOB"]
    (tmp_path / "fail.2").touch()
    assert run_pl(tmp_path, *command).returncode == 1
    (tmp_path / "fail.2").unlink()
    log = tmp_path / "log.3"
    log.write_text(log.read_text().replace("# Ended", "# Ended (code 0)\nkilled"))
    (tmp_path / "log.4").unlink()
    for path in tmp_path.glob("ran.*"):
        path.unlink()
    result = run_pl(tmp_path, "--pick", pick, *command)
    assert result.returncode == (1 if failures else 0)
    assert failures in result.stderr
    assert sorted(path.suffix[1:] for path in tmp_path.glob("ran.*")) == list(again)


def start_and_signal(folder: Path, job: str, name: str, ignored: str = "") -> subprocess.Popen[str]:
    """Start three jobs, one at a time. Send the signal once the first has written its process id."""
    (folder / "job.sh").write_text(job)
    words = [str(RUN_PL), "--max-jobs-run", "1", "JOB=1:3", "log.JOB", "bash", "job.sh", "JOB"]
    process = subprocess.Popen(
        words, cwd=folder, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: reset_signals(ignored)
    )
    wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text().endswith("\n"))
    process.send_signal(getattr(signal, name))
    return process


def is_running(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_cancels_grandchildren_too(tmp_path: Path, name: str) -> None:
    for number in "123":
        (tmp_path / f"log.{number}").write_text("# Ended (code 0) at an earlier time\n")
    grandchild = "(trap 'touch heard; exit' TERM; echo $BASHPID > pid; while true; do sleep 0.05; done)"
    process = start_and_signal(tmp_path, f"{grandchild} & wait", name)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 2
    assert "cancelling 1 running jobs" in error
    assert not is_running(int((tmp_path / "pid").read_text()))
    assert (tmp_path / "heard").exists(), "it was killed without SIGTERM"
    assert "# Cancelled by signal" in (tmp_path / "log.1").read_text()
    assert "# Ended" not in (tmp_path / "log.1").read_text()
    # The logs of an earlier run must not make jobs look finished that have not started.
    assert not (tmp_path / "log.2").exists()


def test_signals_that_the_caller_ignores_stay_ignored(tmp_path: Path) -> None:
    process = start_and_signal(tmp_path, "echo 0 > pid; sleep 0.2", "SIGHUP", ignored="SIGHUP")
    assert process.communicate(timeout=30)[1] == ""
    assert process.returncode == 0


@pytest.mark.parametrize("again", [False, True])
def test_jobs_are_killed_after_a_timeout_or_a_second_signal(tmp_path: Path, again: bool) -> None:
    job = "trap 'touch heard' TERM; sleep 600 & echo $! > pid; while true; do wait; done"
    process = start_and_signal(tmp_path, job, "SIGTERM")
    if again:
        wait_for((tmp_path / "heard").exists)
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=12 if again else 90) == 2  # the time-out of run.pl is 20 seconds
    assert not is_running(int((tmp_path / "pid").read_text()))
