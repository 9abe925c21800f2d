"""Find parts by name: a config names a module that has a dataclass `Config`. Nothing is registered."""

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from wespeaker_lite.core.config import from_mapping, nearest
from wespeaker_lite.core.errors import InputError


def find(package: str, section: Mapping[str, Any], where: str) -> tuple[ModuleType, Any]:
    """Find the module that `section["name"]` names in a package, and fill its `Config` with the section's other keys.

    Raises:
        InputError: for a name that is missing or unknown, or an unknown or ill-typed option, with the nearest match.
    """
    options = dict(section)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"{where}: 'name' is missing; known: {', '.join(names(package))}")
    known = names(package)
    if name not in known:
        raise InputError(f"{where}: unknown name {name!r}{nearest(name, known)}")
    module = importlib.import_module(f"{package}.{name}")
    return module, from_mapping(module.Config, options, f"{where} ({name})")


def names(package: str) -> list[str]:
    """The names that `find` knows in a package."""
    modules = [info.name for info in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    return [name for name in modules if hasattr(importlib.import_module(f"{package}.{name}"), "Config")]


def config_class(package: str, name: str) -> type:
    """The dataclass of options of a part, by its name."""
    return importlib.import_module(f"{package}.{name}").Config
