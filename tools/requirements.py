"""Check whether this Python meets requirement files. Prints each line that is not met; then the exit code is 1.

Usage: python tools/requirements.py [--import] FILE...

With --import it also imports the packages, since two installed packages may not work together.

path.sh calls it at the start of every script, with any active Python. So it imports only light modules of the standard
library: importlib.metadata alone would triple its time.
"""

import importlib
import os
import re
import sys

OLDEST_PYTHON = (3, 11)
COMPARE = {
    ">=": lambda found, wanted: found >= wanted,
    "<": lambda found, wanted: found < wanted,
    "==": lambda found, wanted: found == wanted,
    "!=": lambda found, wanted: found != wanted,
}
MODULES = {"pyyaml": "yaml"}


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without zeros at the end: '2.10.0+cu130' -> (2, 10)."""
    numbers = [int(number) for number in re.match(r"[\d.]*", version).group().split(".") if number]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def normalized(name: str) -> str:
    """The name of a package in a form that is the same for all its spellings."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, str]:
    """The version of every package that this Python finds, by name; read from the names of metadata folders."""
    versions: dict[str, str] = {}
    for folder in filter(os.path.isdir, sys.path):
        for entry in os.listdir(folder):
            found = re.fullmatch(r"([\w.]+)-([^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info", entry)
            if found:
                versions.setdefault(normalized(found[1]), found[2])
    return versions


def complaint(requirement: str, versions: dict[str, str]) -> str | None:
    """Why the installed packages do not meet a line like `torch>=2.9,<4`; None if they do."""
    name, conditions = re.fullmatch(r"([\w.-]+)\s*(.*)", requirement).groups()
    version = versions.get(normalized(name))
    if version is None:
        return f"{requirement}: not installed"
    for condition in filter(None, conditions.split(",")):
        operator, wanted = re.fullmatch(r"\s*(>=|<|==|!=)\s*([\d.]+)\s*", condition).groups()
        if not COMPARE[operator](release(version), release(wanted)):
            return f"{requirement}: found {version}"
    return None


def import_complaint(requirement: str) -> str | None:
    """Why the package of a requirement does not import; None if it does."""
    name = re.match(r"[\w.-]+", requirement).group()
    try:
        importlib.import_module(MODULES.get(name, name.replace("-", "_")))
    except (ImportError, OSError, RuntimeError) as error:  # broken libraries of a package raise any of these
        return f"{requirement}: does not import: {error}"
    return None


def requirements(paths: list[str]) -> list[str]:
    """The requirements in the files, without comments."""
    lines = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            lines += [line.split("#")[0].strip() for line in file]
    return [line for line in lines if line]


def main() -> int:
    """Print every requirement that is not met; returns 1 if there is one, else 0."""
    if sys.version_info < OLDEST_PYTHON:
        print("Python {}.{} or newer is needed".format(*OLDEST_PYTHON))
        return 1
    if sys.argv[1] == "--import":
        complaints = [import_complaint(line) for line in requirements(sys.argv[2:])]
    else:
        versions = installed()
        complaints = [complaint(line, versions) for line in requirements(sys.argv[1:])]
    for text in filter(None, complaints):
        print(text)
    return 1 if any(complaints) else 0


if __name__ == "__main__":
    sys.exit(main())
