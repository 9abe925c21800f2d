"""The resolved config of an experiment: every key and its value, in the experiment's folder, for all its stages."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from wespeaker_lite.core.config import given, parse_yaml, to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_text

log = logging.getLogger(__name__)

HEADER = "# Resolved by wespeaker_lite.bin.config; written again when it or what it comes from changes. Given: "


def resolve(conf: str | Path, overrides: str | Path | None, assignments: Iterable[str], out: str | Path) -> None:
    """Write the resolved config of `conf` to `out`, unless the one there comes from the same conf, overrides and code.

    Raises:
        InputError: for whatever is wrong in the config, see `wespeaker_lite.recipe.experiment.from_given`, and
            for a file in it that is not there.
    """
    mapping = given(conf, overrides, assignments)
    _check_files(mapping, conf)
    header = f"{HEADER}{_digest(mapping)}"
    if _is_current(Path(out), header):
        return
    from wespeaker_lite.recipe.experiment import from_given  # here, since it imports torch, and most calls end above

    write(out, to_mapping(from_given(mapping, str(conf))), header)


def _check_files(mapping: Mapping[str, Any], conf: str | Path) -> None:
    """Look for the files that stages 3 to 6 read, which may be hours from now."""
    for key in ("scoring.calibration.list", "distill.teacher", "distill.teachers", "start_from"):
        found: Any = mapping
        for word in key.split("."):
            found = found.get(word) if isinstance(found, Mapping) else None
        for path in found if isinstance(found, list) else [found]:
            # A name with a line break is refused by `for_shell`, which shows it on one line.
            if isinstance(path, str) and path and path.isprintable() and not Path(path).is_file():
                raise InputError(f"{conf}: {key}: {path}: no such file")


def copy_from_model(model: str | Path, out: str | Path) -> None:
    """Write the config that a trained model carries, unless the one there is of this very model."""
    model = Path(model)
    header = f"{HEADER}{hashlib.sha256(model.read_bytes()).hexdigest()}"
    if _is_current(Path(out), header):
        return
    from wespeaker_lite.recipe.trained_model import load_record  # here, since it imports torch

    try:
        write(out, load_record(model)["config"], header)
    except yaml.YAMLError as error:
        fault = " ".join(str(error).split())
        raise InputError(f"{model}: its config holds more than plain values: {fault}") from error


def write(out: str | Path, resolved: dict[str, Any], header: str = "") -> None:
    """Write a resolved config as YAML, under a header that also has a digest of the text below it."""
    body = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
    write_text(out, _headed(header, body) if header else body)


def _headed(header: str, body: str) -> str:
    return f"{header}, written: {hashlib.sha256(body.encode()).hexdigest()}\n{body}"


def _is_current(out: Path, header: str) -> bool:
    """Whether the file has this header, and is as it was written under it; one that is not is said to be replaced."""
    if not out.exists():
        return False
    content = out.read_bytes()
    if not content.startswith(header.encode()):
        return False
    body = content.partition(b"\n")[2].decode(errors="replace")
    if content == _headed(header, body).encode():
        return True
    log.warning("%s was changed by hand or damaged: it is written again; a conf or --set changes an experiment", out)
    return False


def read(path: str | Path) -> dict[str, Any]:
    """Read a resolved config as plain mappings, without checking it again."""
    return parse_yaml(Path(path).read_text(encoding="utf-8"), str(path))


def body(path: str | Path) -> str:
    """The text of a resolved config, without the header."""
    text = Path(path).read_text(encoding="utf-8")
    return text.partition("\n")[2] if text.startswith(HEADER) else text


def for_shell(path: str | Path) -> Iterator[str]:
    """Each key, a tab, and its value: text and numbers as they are, lists by words, sections as JSON.

    Raises:
        InputError: where a key is no name, or a value would not stay on its line.
    """
    sections = [("", read(path))]
    for prefix, section in sections:
        for key, found in section.items():
            if isinstance(found, dict):
                sections.append((f"{prefix}{key}.", found))
            text = _as_text(found)
            if not str(key).isidentifier() or not text.isprintable():
                raise InputError(f"{path}: {prefix}{key}: a line break or the like in {text!r}, or in its name")
            yield f"{prefix}{key}\t{text}"


def _as_text(found: Any) -> str:
    if isinstance(found, dict | bool):
        return json.dumps(found)
    if isinstance(found, list):
        return " ".join(str(item) for item in found)
    return str(found)


def _digest(mapping: dict[str, Any]) -> str:
    """A hash of the given config and of our sources: new code may have new keys and new defaults."""
    digest = hashlib.sha256(json.dumps(mapping, sort_keys=True, default=str).encode())
    for source in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()
