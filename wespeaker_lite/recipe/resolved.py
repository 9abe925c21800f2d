"""The resolved config: every key and its value, in a file of the experiment's folder, which all stages read."""

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
    """Write the resolved config of `conf` to `out`, unless `out` is from the same conf, overrides and code.

    Raises:
        InputError: for errors in the config, see `wespeaker_lite.recipe.experiment.from_given`, and for a missing file
            that it names.
    """
    mapping = given(conf, overrides, assignments)
    _check_files(mapping, conf)
    header = f"{HEADER}{_digest(mapping)}"
    if _is_current(Path(out), header):
        return
    from wespeaker_lite.recipe.experiment import (
        from_given,
    )  # here, because it imports torch, and most calls return above

    write(out, to_mapping(from_given(mapping, str(conf))), header)


def _check_files(mapping: Mapping[str, Any], conf: str | Path) -> None:
    """Check that the files for stages 3 to 6 exist, so that a missing one is an error now, not hours later."""
    for key in ("scoring.calibration.list", "distill.teacher", "distill.teachers", "start_from"):
        found: Any = mapping
        for word in key.split("."):
            found = found.get(word) if isinstance(found, Mapping) else None
        for path in found if isinstance(found, list) else [found]:
            # `for_shell` refuses a name with a line break.
            if isinstance(path, str) and path and path.isprintable() and not Path(path).is_file():
                raise InputError(f"{conf}: {key}: {path}: no such file")


def copy_from_model(model: str | Path, out: str | Path) -> None:
    """Write the config of a trained model, unless `out` is from this model already."""
    model = Path(model)
    header = f"{HEADER}{hashlib.sha256(model.read_bytes()).hexdigest()}"
    if _is_current(Path(out), header):
        return
    from wespeaker_lite.recipe.trained_model import load_record  # here, because it imports torch

    try:
        write(out, load_record(model)["config"], header)
    except yaml.YAMLError as error:
        fault = " ".join(str(error).split())
        raise InputError(f"{model}: its config holds more than plain values: {fault}") from error


def write(out: str | Path, resolved: dict[str, Any], header: str = "") -> None:
    """Write a resolved config as YAML. A header gets a digest of the text below it."""
    body = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
    write_text(out, _headed(header, body) if header else body)


def _headed(header: str, body: str) -> str:
    return f"{header}, written: {hashlib.sha256(body.encode()).hexdigest()}\n{body}"


def _is_current(out: Path, header: str) -> bool:
    """Whether the file has this header and has not been edited. If it was edited, a warning is logged."""
    if not out.exists():
        return False
    content = out.read_bytes()
    if not content.startswith(header.encode()):
        return False
    body = content.partition(b"\n")[2].decode(errors="replace")
    if content == _headed(header, body).encode():
        return True
    log.warning("%s was edited or damaged: it is written again; edit the conf or use --set instead", out)
    return False


def read(path: str | Path) -> dict[str, Any]:
    """Read a resolved config as plain mappings, without checks."""
    return parse_yaml(Path(path).read_text(encoding="utf-8"), str(path))


def body(path: str | Path) -> str:
    """The text of a resolved config, without the header."""
    text = Path(path).read_text(encoding="utf-8")
    return text.partition("\n")[2] if text.startswith(HEADER) else text


def for_shell(path: str | Path) -> Iterator[str]:
    """Yield `key<tab>value`: text and numbers unchanged, lists separated by spaces, sections as JSON.

    Raises:
        InputError: if a key is not an identifier, or a value is not printable on one line.
    """
    sections = [("", read(path))]
    for prefix, section in sections:
        for key, found in section.items():
            if isinstance(found, dict):
                sections.append((f"{prefix}{key}.", found))
            text = _as_text(found)
            if not str(key).isidentifier() or not text.isprintable():
                raise InputError(f"{path}: {prefix}{key}: a line break or control character in {text!r} or its name")
            yield f"{prefix}{key}\t{text}"


def _as_text(found: Any) -> str:
    if isinstance(found, dict | bool):
        return json.dumps(found)
    if isinstance(found, list):
        return " ".join(str(item) for item in found)
    return str(found)


def _digest(mapping: dict[str, Any]) -> str:
    """A digest of the given config and of our source code, which may have new keys and defaults."""
    digest = hashlib.sha256(json.dumps(mapping, sort_keys=True, default=str).encode())
    for source in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()
