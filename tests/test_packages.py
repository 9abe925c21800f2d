"""The packages of wespeaker_lite have an order: each imports only itself and those before it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "wespeaker_lite"
ORDER = (
    *("core", "kaldi", "audio", "data", "corpora", "models", "recipe", "distill", "training"),
    *("extraction", "scoring", "report", "deploy", "bin"),
)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and package of each import of wespeaker_lite in a module, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "wespeaker_lite":
            inner = node.module.split(".")[1:]
            yield from ((node.lineno, name) for name in inner[:1] or [alias.name for alias in node.names])


def test_every_module_is_in_a_listed_package() -> None:
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))} == set(ORDER)
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("package", ORDER)
def test_no_package_imports_a_later_one(package: str) -> None:
    allowed = ORDER[: ORDER.index(package) + 1]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, name in imports(path)
        if name not in allowed
    ]
    assert not wrong


def modules_imported(path: Path) -> set[str]:
    """The modules of the same package that a module imports at its top level."""
    package = path.relative_to(ROOT.parent).parent.parts
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[: len(package)] == list(package):
            rest = node.module.split(".")[len(package) :]
            found |= set(rest[:1] or [alias.name for alias in node.names])
    return {name for name in found if path.with_name(f"{name}.py").exists()}


@pytest.mark.parametrize("package", ORDER)
def test_there_are_no_circular_imports(package: str) -> None:
    graph = {path.stem: modules_imported(path) for path in (ROOT / package).glob("*.py") if path.stem != "__init__"}
    while leaves := {name for name, needed in graph.items() if not needed & graph.keys()}:
        graph = {name: needed for name, needed in graph.items() if name not in leaves}
    assert not graph
