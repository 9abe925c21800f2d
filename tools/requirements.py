"""Tell whether this Python meets requirement files: prints each line that is not met; exit code 1 if there is one.

Usage: python tools/requirements.py [--import] FILE...

It stands alone and imports nothing heavy, since path.sh asks it at the start of every script, in whatever Python is
active: even importlib.metadata would take three times as long as all the rest. With --import the packages are imported
too: two of them may both be there and yet not fit together.
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
    """A package's name as all its spellings have it in common."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, str]:
    """Version by name of every package that this Python would find, from the names of their metadata folders."""
    versions: dict[str, str] = {}
    for folder in filter(os.path.isdir, sys.path):
        for entry in os.listdir(folder):
            found = re.fullmatch(r"([\w.]+)-([^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info", entry)
            if found:
                versions.setdefault(normalized(found[1]), found[2])
    return versions


def complaint(requirement: str, versions: dict[str, str]) -> str | None:
    """What is wrong with the installed package that a line like `torch>=2.9,<4` names; None if nothing is."""
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
    except (ImportError, OSError, RuntimeError) as error:  # a package's own libraries fail in any of these ways
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
    """Print every complaint; 1 if there is one."""
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
