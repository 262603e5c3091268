"""The report's JSON format: a strict, lossless codec that reads the fields off the dataclasses.

`dumps` and `loads` walk the annotations of a dataclass, so no field is listed twice. Finite
numbers are JSON numbers; in a float field null stands for nan, and the strings "inf" and "-inf" for
infinities. A field that has its default is left out. The format is described in
docs/reference/report-schema.md.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

FORMAT = "symlearn.report/1"
"""Name and version of the format; the number changes whenever an older reader could misread it."""

Record = TypeVar("Record")

_INFINITIES = {"inf": math.inf, "-inf": -math.inf}
_SCALAR = {"nan": math.nan, **_INFINITIES}
_SHOWN = 20  # problems listed in one error


def check(record: object) -> None:
    """Check that every field of a dataclass holds plain values of its annotated type.

    Args:
        record: An instance of a dataclass of floats, ints, bools, strings, dicts and tuples.

    Raises:
        TypeError: Names the field, what it holds and what it takes.
    """
    _encode(record, type(record), type(record).__name__)


def dumps(record: object, name: str = FORMAT) -> str:
    """Write a dataclass as JSON text, with the format's name first.

    Args:
        record: As for `check`.
        name: Name and version of the format.
    """
    body = _encode(record, type(record), type(record).__name__)
    return json.dumps({"format": name, **body}, indent=2, allow_nan=False) + "\n"


def loads(text: str, record: type[Record], name: str = FORMAT) -> Record:
    """Read JSON text into a dataclass; nothing missing, nothing unknown, nothing of a wrong type.

    Args:
        text: What `dumps` wrote.
        record: The dataclass to build.
        name: Name and version of the format.

    Raises:
        ValueError: If the text is truncated, is not JSON, has another format, or has fields that
            are missing, unknown or of a wrong type. All fields at fault are named at once.
    """
    body = _parse(text)
    if not isinstance(body, dict) or "format" not in body:
        raise ValueError(f"not a report: the field 'format' is missing, expected {name!r}")
    found = body.pop("format")
    if found != name:
        raise ValueError(
            f"format: this version reads {name!r}, the text has {found!r}; "
            "read it with the version of symlearn that wrote it"
        )
    problems: list[str] = []
    value = _decode(body, record, "", problems)
    if problems:
        more = len(problems) - _SHOWN
        tail = [f"and {more} more"] if more > 0 else []
        raise ValueError("not a valid report:\n  " + "\n  ".join(problems[:_SHOWN] + tail))
    return value  # type: ignore[no-any-return]


@cache
def _hints(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass and their types."""
    hints = get_type_hints(record)
    return {field.name: hints[field.name] for field in dataclasses.fields(record)}


@cache
def _optional(record: Any) -> dict[str, Any]:
    """Return the fields that have a default, which the text leaves out, and the default."""
    given = {field.name: field.default for field in dataclasses.fields(record)}
    made = {
        field.name: field.default_factory()
        for field in dataclasses.fields(record)
        if field.default_factory is not dataclasses.MISSING
    }
    return {k: v for k, v in {**given, **made}.items() if v is not dataclasses.MISSING}


def _is_record(hint: Any) -> bool:
    # A plain bool: mypy would narrow the hint to something that is not callable.
    return dataclasses.is_dataclass(hint)


def _takes(hint: Any) -> str:
    # "float", "dict[str, ...]": for error texts.
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)


def _is_plain(value: object, hint: Any) -> bool:
    if hint is float:
        return isinstance(value, (float, int)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


# --- Writing ---


def _encode(value: Any, hint: Any, where: str) -> Any:
    origin = get_origin(hint)
    expected = origin if origin in (dict, tuple) else hint
    if not _is_plain(value, expected):
        raise TypeError(
            f"{where} takes a plain {_takes(hint)}, got {type(value).__name__}: {str(value)[:80]}"
        )
    if origin is dict:
        inner = get_args(hint)[1]
        return {
            _key(key, where): _encode(item, inner, f"{where}[{key!r}]")
            for key, item in value.items()
        }
    if origin is tuple:
        inner = get_args(hint)[0]
        return [_encode(item, inner, f"{where}[{index}]") for index, item in enumerate(value)]
    if _is_record(hint):
        body = {
            name: _encode(getattr(value, name), kind, f"{where}.{name}")
            for name, kind in _hints(hint).items()
        }
        return {
            name: part
            for name, part in body.items()
            if name not in _optional(hint) or getattr(value, name) != _optional(hint)[name]
        }
    if hint is float:
        return _encode_float(float(value))
    if isinstance(value, float) and not math.isfinite(value):
        # A free value may also be None or the string "inf", so it needs a form of its own.
        return {"float": str(value)}
    return value


def _encode_float(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{where} takes str keys, got {type(key).__name__}: {key!r}")
    return key


# --- Reading ---


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        fields = re.findall(r'"([^"\\]*)"\s*:', text[: error.pos])
        after = f" after the field {fields[-1]!r}" if fields else ""
        raise ValueError(
            f"not a report: the JSON text is truncated or damaged{after}, "
            f"at line {error.lineno}, column {error.colno} ({error.msg})"
        ) from error
    except RecursionError as error:
        raise ValueError("not a report: the JSON text is nested too deeply") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(
        f"not a report: {name} is not JSON; nan is null and infinities are 'inf', '-inf'"
    )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(
            f"not a report: these fields occur twice in one object: {', '.join(twice)}"
        )
    return body


def _decode(value: Any, hint: Any, where: str, problems: list[str]) -> Any:
    origin = get_origin(hint)
    if _is_record(hint):
        return _decode_record(value, hint, where, problems)
    if origin is dict:
        inner = get_args(hint)[1]
        items = _typed(value, {}, "an object", where, problems).items()
        return {key: _decode(item, inner, f"{where}[{key!r}]", problems) for key, item in items}
    if origin is tuple:
        inner = get_args(hint)[0]
        array = _typed(value, [], "an array", where, problems)
        return tuple(_decode(x, inner, f"{where}[{i}]", problems) for i, x in enumerate(array))
    decode_leaf: Callable[[Any], Any] = _LEAVES.get(hint, _decode_free)
    try:
        return decode_leaf(value)
    except (ValueError, OverflowError) as error:
        problems.append(f"{where}: {error}, got {json.dumps(value)[:80]}")
        return None


def _typed(value: Any, empty: Any, article: str, where: str, problems: list[str]) -> Any:
    if isinstance(value, type(empty)):
        return value
    problems.append(f"{where}: needs {article}, got {json.dumps(value)[:80]}")
    return empty


def _decode_record(value: Any, record: Any, where: str, problems: list[str]) -> Any:
    before = len(problems)
    if not isinstance(value, dict):
        _typed(value, {}, "an object", where or "report", problems)
        return None
    prefix = f"{where}." if where else ""
    hints = _hints(record)
    required = [name for name in hints if name not in _optional(record)]
    problems += [f"{prefix}{name}: missing" for name in required if name not in value]
    problems += [f"{prefix}{name}: unknown field" for name in value if name not in hints]
    fields = {
        name: _decode(value[name], hint, prefix + name, problems)
        for name, hint in hints.items()
        if name in value
    }
    if len(problems) > before:
        return None
    try:
        return record(**fields)
    except ValueError as error:
        problems.append(f"{where or 'report'}: {error}")
        return None


def _decode_float(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str) and value in _INFINITIES:
        return _INFINITIES[value]
    if _is_plain(value, float) and math.isfinite(value):
        return float(value)
    raise ValueError("needs a finite number, null for nan, or 'inf' or '-inf'")


def _decode_int(value: Any) -> int:
    if _is_plain(value, int):
        return int(value)
    raise ValueError("needs a whole number")


def _decode_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("needs true or false")


def _decode_str(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("needs a string")


def _decode_note(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ValueError("needs a string or null")


def _decode_free(value: Any) -> str | float | int | None:
    if isinstance(value, dict) and list(value) == ["float"] and isinstance(value["float"], str):
        number = _SCALAR.get(value["float"])
        if number is not None:
            return number
    finite = isinstance(value, float) and math.isfinite(value)
    if value is None or isinstance(value, (str, int)) or finite:
        return value  # type: ignore[no-any-return]
    raise ValueError("needs a string, a finite number, null, or {'float': 'nan' | 'inf' | '-inf'}")


_LEAVES: dict[Any, Callable[[Any], Any]] = {
    float: _decode_float,
    int: _decode_int,
    bool: _decode_bool,
    str: _decode_str,
    str | None: _decode_note,
}
