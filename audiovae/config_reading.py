"""TOML files to nested tables, and what a user reads when a table is wrong."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from audiovae.errors import ConfigError


def read_tables(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Tables of a TOML file, and below them those of the files it extends.

    Args:
        path: The file.
        seen: Files that extend it, directly or not.

    Raises:
        ConfigError: If a file is missing or no TOML, or extends itself.
    """
    resolved = path.resolve()
    if resolved in seen:
        raise ConfigError(f"{path}: extends itself; remove the circle")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a TOML config file, got {error.strerror or error}; "
            "see configs/ for the ones that ship"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML, got a syntax error: {error}") from None
    parent = tables.pop("extends", None)
    if parent is None:
        return tables
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: expected extends to be the path of a TOML file, got {parent!r}")
    return _merge(read_tables(path.parent / parent, (*seen, resolved)), tables)


def with_settings(tables: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Tables with some values replaced.

    Args:
        tables: Of a TOML file.
        settings: `table.key=value` each; a value that is no TOML is taken for a string.

    Raises:
        ConfigError: If one is no such thing.

    Example:
        >>> with_settings({"vae": {"width": 8}}, ["vae.width=16", "bottleneck.kind=vq"])
        {'vae': {'width': 16}, 'bottleneck': {'kind': 'vq'}}
    """
    for setting in settings:
        key, equals, value = setting.partition("=")
        try:
            changed = _parse_setting(key, value)
        except tomllib.TOMLDecodeError:
            changed = {}
        if not equals or not changed:
            raise ConfigError(
                f"--set: expected a setting like objective.beta=4, got '{setting}'; "
                "write table.key=value"
            )
        tables = _merge(tables, changed)
    return tables


def _parse_setting(key: str, value: str) -> dict[str, Any]:
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        return tomllib.loads(f"{key} = {json.dumps(value)}")


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with the tables that `model` refused, in one line."""
    problems = error.errors()
    # A misspelt key is also a missing one: the unknown name is the line that helps.
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    problem = (unknown or problems)[0]
    location = [str(part) for part in problem["loc"]]
    dotted = ".".join(location)
    if problem["type"] != "extra_forbidden":
        reason = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "model_type":  # which names a class of ours
            reason = "must be a table of settings"
        given = problem["input"]
        got = "" if isinstance(given, dict | BaseModel) else f", got {given!r}"
        return f"{dotted}: {reason}{got}" if dotted else f"{reason}{got}"
    known = _field_names(location[:-1], model)
    nearest = difflib.get_close_matches(location[-1], known, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"known keys: {', '.join(known)}"
    return f"unknown key '{dotted}'; {hint}"


def _field_names(location: list[str], model: type[BaseModel]) -> list[str]:
    """Field names of the config table at `location`."""
    fields: Any = model
    for part in location:
        if part.isdigit():
            continue
        annotation = fields.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        fields = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return sorted(fields.model_fields)
