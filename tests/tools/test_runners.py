"""tools/slurm.pl and tools/queue.pl with fake schedulers in bash. tests/cluster has the real ones."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import example, given, settings

from tests.tools.runners import AWKWARD_WORDS, WORDS, reset_signals

ROOT = Path(__file__).resolve().parents[2]

# Each records its arguments. The submission runs the tasks, unless a file of the test changes that.
SUBMIT = """\
[ ! -e refuse ] || { cat refuse; exit 3; }
[ ! -e hang ] || . ./hang
[ ! -e busy ] || { head -1 busy >&2; sed -i 1d busy; [ -s busy ] || rm busy; exit 1; }
[ ! -e banner ] || { cat banner; cat banner >&2; }
printf '%%s\\n' "$@" > submitted
for range; do case $range in --array=*|[0-9]*-[0-9]*) break;; esac; done
range=${range#--array=}; range=${range%%%%%%*}
if [ -e hold ]; then
  printf '%%s\n' "$@" | grep -A 1 -E '^-N$|^--job-name=' | sed 's/--job-name=//; /^-N$/d; q' >> jobs
fi
[ ! -e late ] || . ./late
[ -e hold ] || for id in $(seq ${range%%-*} ${range#*-}); do %s=$id bash "${!#}" & done >/dev/null 2>&1
echo 42
"""
# The file `jobs` has the names of unfinished jobs, each on line (job number - 41).
STATES = """\
echo "$@" >> asked
[ ! -e silent ] || { echo 'cannot reach the controller'; exit 1; }
case $* in
  *%F*) [ ! -e jobs ] || awk -v user=$UID -v name="${!#}" \
    '"--name=" $1 == name { print 41 + NR "|" user "|" $1 }' jobs ;;
  "-r -u "*) [ ! -e jobs ] || awk -v user="${!#}" \
    '$1 { print 41 + NR " 0.5 " substr($1, 1, 10), user " r today all.q 1 1-4:1"; print " Full jobname:  " $1 }' jobs ;;
  *"-qs u"*) [ ! -e unheard ] || cat unheard ;;
  *) [ ! -e states ] || cat states ;;
esac
"""
CANCEL = """\
echo "$@" >> cancelled
[ -e stubborn ] || [ ! -e jobs ] || sed -i "$(($1 - 41))s/.*//" jobs
"""


@dataclass
class Runner:
    """A runner in a folder with its fake scheduler."""

    name: str
    folder: Path
    conf: list[str] = field(default_factory=list)

    def make_scheduler(self) -> None:
        """Write the three fake programs to bin/."""
        names = ("sbatch", "squeue", "scancel") if self.name == "slurm" else ("qsub", "qstat", "qdel")
        task_id = "SLURM_ARRAY_TASK_ID" if self.name == "slurm" else "SGE_TASK_ID"
        (self.folder / "bin").mkdir(parents=True)
        for name, script in zip(names, (SUBMIT % task_id, STATES, CANCEL), strict=True):
            (self.folder / "bin" / name).write_text("#!/bin/bash\n" + script)
            (self.folder / "bin" / name).chmod(0o755)

    def start(self, *words: str) -> subprocess.Popen[str]:
        environment = os.environ | {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        command = [str(ROOT / "tools" / f"{self.name}.pl"), *self.conf, *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stderr=pipe, text=True, preexec_fn=reset_signals
        )

    def run(self, *words: str) -> tuple[int, str]:
        process = self.start(*words)
        message = process.communicate(timeout=60)[1]
        return process.returncode, message

    def wait_for(self, name: str) -> None:
        while not self.has(name):
            time.sleep(0.05)

    def wait_until_there(self, name: str) -> None:
        while not (self.folder / name).exists():
            time.sleep(0.05)

    def finish_task(self, number: int) -> None:
        """Write the sync file of a successful task, as its script does."""
        while not (found := [path for path in self.folder.glob("q/*") if path.is_dir()]):
            time.sleep(0.05)
        (found[0] / str(number)).write_text("0\n")

    def name_of(self, log: str) -> str:
        """The name of a job with this log, with a 64-bit FNV-1a digest."""
        digest = 0xCBF29CE484222325
        for byte in f"{self.folder}/{log}".encode():
            digest = ((digest ^ byte) * 0x100000001B3) % 2**64
        return f"{Path(log).stem.replace('.JOB', '')}_{digest:016x}"

    def use_conf(self, text: str) -> None:
        (self.folder / "own.conf").write_text(text)
        self.conf = ["--config", "own.conf"]

    def has(self, name: str) -> list[str]:
        """The lines of a file; none if it does not exist."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def state(self, task: int, state: str) -> str:
        """A line of squeue or qstat."""
        if self.name == "slurm":
            return f"{task}|{state}|None\n"
        return f"     42 0.5 x  root  {state}  11/22/2026 06:00:00 all.q@n1  1 {task}\n"


@pytest.fixture(params=["slurm", "queue"])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Runner:
    made = Runner(request.param, tmp_path)
    made.make_scheduler()
    return made


@pytest.fixture
def slurm(tmp_path: Path) -> Runner:
    made = Runner("slurm", tmp_path)
    made.make_scheduler()
    return made


@pytest.mark.parametrize(
    ("options", "slurm", "queue"),
    [
        (["--mem", "4G"], "--mem-per-cpu=4G", "-l mem_free=4G,ram_free=4G"),
        (["--mem", "0"], "", ""),
        (["--num-threads", "2"], "--cpus-per-task=2 --ntasks-per-node=1", "-pe smp 2"),
        (["--num_threads", "2"], "--cpus-per-task=2 --ntasks-per-node=1", "-pe smp 2"),
        (["--mem", "1G", "--gpu", "1"], "--gres=gpu:1 --mem-per-cpu=1G", "-l gpu=1 -q g.q -l mem_free=1G,ram_free=1G"),
        (["--gpu", "0"], "", ""),
        (["-q", "short", "-x", "y z"], "-q short -x y z", "-q short -x y z"),
    ],
)
def test_options_by_the_confs_of_the_repository(runner: Runner, options: list[str], slurm: str, queue: str) -> None:
    assert runner.run(*options, "JOB=2:3", "log/x.JOB.log", "true") == (0, "")
    said = " ".join(runner.has("submitted"))
    first = "--export=PATH --no-requeue" if runner.name == "slurm" else "-v PATH -cwd -j y -S /bin/bash -r n"
    words = slurm if runner.name == "slurm" else queue
    own = " --parsable " if runner.name == "slurm" else " -terse "
    assert said.split(own)[0] == f"{first} {words}".strip()
    log = "--output=log/x.%a.log" if runner.name == "slurm" else f"-o {runner.folder}/log/x.$TASK_ID.log"
    assert log in said
    assert said.endswith("log/q/x.sh")


def test_time_and_flags(slurm: Runner) -> None:
    assert slurm.run("--time", "1:00:00", "-H", "-p", "main", "x%.log", "true") == (0, "")
    said = slurm.has("submitted")
    assert said[2:6] == ["--time=1:00:00", "-H", "-p", "main"]
    assert {"--array=1-1", "--output=x%%.log"} <= set(said)


def test_smallest_throttle_counts(runner: Runner) -> None:
    options = ["--max-jobs-run", "3", "-tc", "2", "--max-jobs-run", "4"]
    assert runner.run(*options, "JOB=1:5", "x.JOB.log", "true") == (0, "")
    said = " ".join(runner.has("submitted"))
    assert ("--array=1-5%2 " if runner.name == "slurm" else " -t 1-5 -tc 2 ") in said


def test_conf_lines(runner: Runner) -> None:
    runner.use_conf(
        """
# command nothing
command false
command bin/{} --name "a b"   # the last one counts
option big=yes --huge 'x  y'
option big=*   --size=$0,$0
default mood=good
option mood=* --mood $0  # no comment
""".format("sbatch" if runner.name == "slurm" else "qsub")
    )
    assert runner.run("--big", "yes", "x.log", "true") == (0, "")
    assert runner.has("submitted")[:6] == ["--name", "a b", "--huge", "x  y", "--mood", "good"]
    assert runner.run("--big", "$(touch BAD) 5", "--mood", "a b", "x.log", "true") == (0, "")
    assert runner.has("submitted")[2:5] == ["--size=$(touch BAD) 5,$(touch BAD) 5", "--mood", "a b"]
    assert not (runner.folder / "BAD").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("colour blue", "own.conf:2: expected"),
        ("option mem", "own.conf:2: expected"),
        ("default gpu", "own.conf:2: expected"),
        ("option mem=* 'x", "own.conf:2: a quote is not closed"),
    ],
)
def test_wrong_conf_names_file_and_line(runner: Runner, line: str, message: str) -> None:
    runner.use_conf(f"command sbatch\n{line}\n")
    code, said = runner.run("x.log", "true")
    assert (code, message in said) == (1, True), said
    runner.use_conf("option mem=0\n")
    assert "own.conf: no line with the command" in runner.run("x.log", "true")[1]
    (runner.folder / "own.conf").unlink()
    assert "cannot read own.conf" in runner.run("x.log", "true")[1]
    assert not runner.has("submitted")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--colour", "blue", "x.log", "true"], "has no option colour=blue, nor colour=*"),
        (["--mem=4G", "x.log", "true"], "write an option and its value as two words, not '--mem=4G'"),
        (["--max-jobs-run", "0", "x.log", "true"], "--max-jobs-run needs a whole number above 0"),
        (["--num-threads", "many", "x.log", "true"], "--num-threads needs a whole number above 0"),
        (["JOB=1:3", "x.log", "true"], "JOB must be in the path of the log"),
        (["x.log"], "expected a log file and a command"),
    ],
)
def test_wrong_lines_submit_nothing(runner: Runner, words: list[str], message: str) -> None:
    code, said = runner.run(*words)
    assert (code, message in said) == (1, True), said
    assert os.listdir(runner.folder) == ["bin"]


@settings(max_examples=5, deadline=None)
@given(WORDS)
@example(AWKWARD_WORDS)
def test_words_reach_the_command_unchanged(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    runner = Runner("queue", tmp_path_factory.mktemp("with space"))
    runner.make_scheduler()
    words = ["@TASK@", "@TASK1@", "T\n#$ -l x=y", *words]
    assert runner.run("T_T=7:7", "x.T_T.log", "printf", "%s\\0", *words, "T_T", ">", "out.T_T") == (0, "")
    expected = [word.replace("T_T", "7") for word in [*words, "T_T"]]
    assert (runner.folder / "out.7").read_bytes() == b"".join(word.encode() + b"\0" for word in expected)
    said = runner.has("submitted")
    assert said[said.index("-C") + 1] == "", "qsub may read options from the script"


def test_path_sh_is_sourced_and_may_fail(runner: Runner) -> None:
    (runner.folder / "path.sh").write_text("task=mine\nTOLD='by path.sh'\n")
    assert runner.run("JOB=1:2", "JOB/x.log", "echo", "JOB", ";", "bash", "-c", "true", "$TOLD") == (0, "")
    assert runner.has("2/x.log")[3] == "2"
    assert os.listdir(runner.folder / "q") == ["x.sh"]
    (runner.folder / "path.sh").write_text("echo no Python here; return 1\n")
    code, message = runner.run("--num-threads", "3", "x.log", "true")
    assert (code, f"{runner.name}.pl: x.log failed: no Python here\n" in message) == (1, True)
    assert runner.has("x.log")[-2].endswith("threads=3")


def test_a_refusal_is_reported(runner: Runner) -> None:
    (runner.folder / "refuse").write_text("no such partition\n")
    code, message = runner.run("log/x.log", "true")
    assert (code, "did not take the job (code 3): no such partition" in message) == (1, True)
    assert os.listdir(runner.folder / "log/q") == ["x.sh"]
    runner.use_conf("command not-there\n")
    code, message = runner.run("log/x.log", "true")
    assert (code, "cannot start not-there" in message) == (1, True)


def test_a_temporary_failure_of_a_submission_is_retried(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WESPEAKER_LITE_SUBMIT_PAUSES", "0 0")
    (runner.folder / "busy").write_text("error: Socket timed out\nunable to contact the qmaster\n")
    code, message = runner.run("x.log", "true")
    assert code == 0
    assert [line.split("did not take the job")[1] for line in message.splitlines()] == [
        " (error: Socket timed out); trying again in 0 s",
        " (unable to contact the qmaster); trying again in 0 s",
    ]
    (runner.folder / "busy").write_text("Socket timed out\n" * 3)
    code, message = runner.run("x.log", "true")
    assert code == 1
    assert message.endswith("did not take the job (code 1): Socket timed out\n")


@pytest.mark.parametrize("hanging", ["exec sleep 30", "sleep 30; true"], ids=["program", "wrapper"])
def test_a_submission_that_hangs_is_stopped(runner: Runner, monkeypatch: pytest.MonkeyPatch, hanging: str) -> None:
    monkeypatch.setenv("WESPEAKER_LITE_SUBMIT_SECONDS", "1")
    (runner.folder / "hang").write_text(hanging)
    began = time.monotonic()
    code, message = runner.run("x.log", "true")
    assert code == 1
    assert time.monotonic() - began < 20, "a child of the wrapper holds the pipe"
    assert "no answer for 1 s; it may still run, see: " in message
    assert message.endswith(f" {runner.name_of('x.log')}\n")


@pytest.mark.parametrize("hanging", ["hang", "late"], ids=["before", "after"])
def test_a_signal_during_a_submission_acts_at_once(runner: Runner, hanging: str) -> None:
    """It hangs before the scheduler accepts the job, or afterwards, before it prints the number."""
    (runner.folder / "hold").touch()
    (runner.folder / hanging).write_text("touch here; sleep 60")
    process = runner.start("x.log", "true")
    runner.wait_until_there("here")
    began = time.monotonic()
    process.terminate()
    message = process.communicate(timeout=20)[1]
    assert (process.returncode, time.monotonic() - began < 10) == (2, True)
    if hanging == "hang":
        assert "signal TERM: found no such job, cancelled nothing; the job may still run, see: " in message
        assert not runner.has("cancelled")
    else:
        assert message == f"{runner.name}.pl: signal TERM: cancelling the array 42\n"
        assert runner.has("cancelled") == ["42"]


def test_a_signal_between_submissions_acts_at_once(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WESPEAKER_LITE_SUBMIT_PAUSES", "60")
    (runner.folder / "busy").write_text("Socket timed out\nSocket timed out\n")
    process = runner.start("x.log", "true")
    assert "trying again in 60 s" in process.stderr.readline()
    process.terminate()
    process.communicate(timeout=10)
    assert (process.returncode, runner.has("submitted")) == (2, [])


def test_a_failed_submission_that_was_accepted_is_not_repeated(runner: Runner) -> None:
    """Slurm may time out after it has accepted the job."""
    (runner.folder / "hold").touch()
    (runner.folder / "late").write_text("echo Socket timed out >&2; exit 1")
    process = runner.start("x.log", "true")
    runner.finish_task(1)
    assert (process.communicate(timeout=30)[1], process.returncode) == ("", 0)
    assert len(runner.has("jobs")) == 1


def test_the_number_is_not_read_from_a_banner(runner: Runner) -> None:
    (runner.folder / "banner").write_text("2026 is the last year of this cluster\n")
    (runner.folder / "hold").touch()
    (runner.folder / "states").write_text(runner.state(1, "NODE_FAIL" if runner.name == "slurm" else "Eqw"))
    assert runner.run("x.log", "true")[0] == 1
    assert [line for line in runner.has("asked") if "2026" in line] == []
    assert [line.split()[-1] for line in runner.has("cancelled")] == ["42"]
    (runner.folder / "banner").unlink()
    (runner.folder / "refuse").write_text("42 jobs are too many\n")
    assert runner.run("x.log", "true")[0] == 1


@pytest.mark.parametrize("last", ["2026", "42 is your job"], ids=["another number", "text after it"])
def test_a_job_without_a_printed_number_is_found_by_its_name(runner: Runner, last: str) -> None:
    (runner.folder / "hold").touch()
    (runner.folder / "late").write_text(f"echo {last}; exit")
    process = runner.start("x.log", "true")
    while not any("42" in line for line in runner.has("asked")) and runner.name == "slurm":
        time.sleep(0.05)
    runner.finish_task(1)
    message = process.communicate(timeout=30)[1]
    assert process.returncode == 0
    if last == "2026":
        assert message == ""
    else:
        assert message.startswith(
            f"{runner.name}.pl: {'sbatch' if runner.name == 'slurm' else 'qsub'} does not end with"
        )
        assert message.endswith(f" {runner.name_of('x.log')}\n")
    assert not runner.has("cancelled")


@pytest.mark.parametrize("last", ["2026", "42 is your job"], ids=["another number", "text after it"])
def test_only_a_job_of_our_name_is_cancelled(runner: Runner, last: str) -> None:
    (runner.folder / "hold").touch()
    (runner.folder / "late").write_text(f"echo {last}; exit")
    process = runner.start("x.log", "true")
    runner.wait_for("jobs")
    process.terminate()
    assert process.communicate(timeout=30)[1].endswith(": signal TERM: cancelling the array 42\n")
    assert runner.has("cancelled") == ["42"]


def test_a_job_of_another_name_is_not_cancelled(runner: Runner) -> None:
    """The job with our number has another name."""
    (runner.folder / "hold").touch()
    process = runner.start("x.log", "true")
    runner.wait_for("jobs")
    (runner.folder / "jobs").write_text("theirs\n")
    process.terminate()
    message = process.communicate(timeout=30)[1]
    assert "signal TERM: found no such job, cancelled nothing; array 42 may still run, see: " in message
    assert (process.returncode, runner.has("cancelled")) == (2, [])


def test_a_job_that_a_killed_runner_left_ends_before_the_next_starts(runner: Runner) -> None:
    (runner.folder / "hold").touch()
    process = runner.start("JOB=1:2", "log/x.JOB.log", "true")
    runner.wait_for("jobs")
    process.kill()
    process.communicate()
    (runner.folder / "log/x.1.log").write_text("it runs\n")
    name = runner.name_of("log/x.JOB.log")
    assert runner.has("jobs") == [name]
    (runner.folder / "hold").unlink()
    (runner.folder / "submitted").unlink()
    code, message = runner.run("JOB=1:2", "log/x.JOB.log", "true")
    said = f"{runner.name}.pl: job 42 ({name}) is left from an earlier run; cancelling it\n"
    assert (code, message, runner.has("cancelled")) == (0, said, ["42"])
    assert "it runs" not in runner.has("log/x.1.log")


def test_no_job_starts_while_an_older_one_runs(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WESPEAKER_LITE_END_SECONDS", "1")
    (runner.folder / "jobs").write_text(f"{runner.name_of('x.log')}\n")
    (runner.folder / "x.log").write_text("it runs\n")
    (runner.folder / "stubborn").touch()
    code, message = runner.run("x.log", "true")
    assert (code, "it does not end, and this job would write the same files" in message) == (1, True)
    assert (runner.has("submitted"), runner.has("x.log")) == ([], ["it runs"])


def test_another_folder_or_log_is_another_job(runner: Runner) -> None:
    (runner.folder / "jobs").write_text(f"{runner.name_of('log/x.log')}\n{runner.name_of('../x.log')}\n")
    assert runner.run("x.log", "true") == (0, "")
    assert runner.name_of("x.log") in " ".join(runner.has("submitted"))
    assert not runner.has("cancelled")


def test_slurms_states_of_lost_tasks(slurm: Runner) -> None:
    (slurm.folder / "hold").touch()
    lines = [slurm.state(1, "TIMEOUT"), slurm.state(2, "OUT_OF_MEMORY"), "3|PENDING|launch failed requeued held\n"]
    (slurm.folder / "states").write_text("".join(lines))
    code, message = slurm.run("JOB=1:3", "x.JOB.log", "true")
    assert code == 1
    assert message.splitlines() == [
        "slurm.pl: x.1.log was lost (TIMEOUT): no output",
        "slurm.pl: x.2.log was lost (OUT_OF_MEMORY): no output",
        "slurm.pl: x.3.log was lost (PENDING, launch failed requeued held): no output",
        "slurm.pl: 3 / 3 failed, log is in x.*.log",
    ]
    assert slurm.has("cancelled") == ["42"], "the held task would stay in the queue"


def test_grid_engines_error_state(tmp_path: Path) -> None:
    runner = Runner("queue", tmp_path)
    runner.make_scheduler()
    (tmp_path / "hold").touch()
    (tmp_path / "states").write_text(runner.state(1, "Eqw"))
    code, message = runner.run("x.log", "true")
    assert (code, "was lost (state Eqw" in message) == (1, True)
    assert runner.has("cancelled") == ["42"]


def test_a_grid_engine_host_that_does_not_answer_may_come_back(tmp_path: Path) -> None:
    """tests/cluster has a host that does not come back."""
    runner = Runner("queue", tmp_path)
    runner.make_scheduler()
    (tmp_path / "hold").touch()
    for name in ("states", "unheard"):
        (tmp_path / name).write_text(runner.state(1, "r"))
    process = runner.start("x.log", "true")
    while not any("-qs u" in line for line in runner.has("asked")):
        time.sleep(0.05)
    time.sleep(7)
    (sync,) = (path for path in (tmp_path / "q").iterdir() if path.is_dir())
    (sync / "1").write_text("0\n")
    assert (process.communicate(timeout=30)[1], process.returncode) == ("", 0)


def test_the_runner_waits_for_a_late_sync_file(slurm: Runner) -> None:
    """The scheduler has forgotten the task, and its sync file appears some seconds later."""
    (slurm.folder / "hold").touch()
    process = slurm.start("x.log", "true")
    slurm.wait_for("asked")
    time.sleep(1)
    (sync,) = (path for path in (slurm.folder / "q").iterdir() if path.is_dir())
    (sync / "1").write_text("0\n")
    assert (process.communicate(timeout=30)[1], process.returncode) == ("", 0)


def test_a_vanished_task_is_lost(slurm: Runner) -> None:
    (slurm.folder / "hold").touch()
    code, message = slurm.run("x.log", "true")
    assert (code, "x.log was lost (the scheduler does not know it any more)" in message) == (1, True)


def test_a_silent_scheduler_gives_one_message(slurm: Runner) -> None:
    (slurm.folder / "silent").touch()
    code, message = slurm.run("x.log", "sleep", "6")
    assert code == 0
    look = f"squeue --me --name {slurm.name_of('x.log')}"
    assert message == f"slurm.pl: the scheduler does not answer; array 42 may still run, see: {look}\n"
    assert len(slurm.has("asked")) == 3, "the scheduler is asked too often"


def test_a_vanished_folder_ends_the_runner(runner: Runner) -> None:
    (runner.folder / "hold").touch()
    process = runner.start("log/x.log", "true")
    runner.wait_for("submitted")
    time.sleep(0.3)
    shutil.rmtree(runner.folder / "log")
    assert "log/x.log was lost (" in process.communicate(timeout=30)[1]
    assert (process.returncode, runner.has("cancelled")) == (1, ["42"])


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_cancels(runner: Runner, name: str) -> None:
    (runner.folder / "hold").touch()
    process = runner.start("JOB=1:2", "x.JOB.log", "true")
    runner.wait_for("submitted")
    (runner.folder / "x.1.log").write_text("it runs\n")
    process.send_signal(getattr(signal, name))
    message = process.communicate(timeout=30)[1]
    assert (process.returncode, message) == (2, f"{runner.name}.pl: signal {name[3:]}: cancelling the array 42\n")
    assert runner.has("cancelled") == ["42"]
    assert runner.has("x.1.log")[-1] == f"# Cancelled by signal {name[3:]}"
    assert not (runner.folder / "x.2.log").exists()
