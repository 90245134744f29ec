"""Checks data from a file against the types that ``results.py`` declares, so that damage is not drawn."""

from __future__ import annotations

import re
import types
from functools import cache
from typing import (
    Any,
    Final,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

#: The classes that JSON gives for each simple type.
_TYPES: Final[dict[Any, set[type]]] = {
    int: {int},
    float: {int, float},
    str: {str},
    bool: {bool},
    types.NoneType: {types.NoneType},
}

#: Control characters but tab and newline, and halves of surrogate pairs.
_ODD: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def mismatch(value: Any, kind: Any, where: str = "") -> str | None:
    """Where ``value`` is not of a type and how, as ``cells[3].measured lacks 'messages'``; None if it is."""
    origin = get_origin(kind)
    if is_typeddict(kind):
        return _record(value, kind, where)
    if origin in (list, dict):
        return _container(value, origin, get_args(kind)[-1], where)
    if origin is Literal:
        return None if value in get_args(kind) else f"{where} is {value!r}"
    if origin in (Union, types.UnionType):
        found = [mismatch(value, each, where) for each in get_args(kind)]
        return None if None in found else found[0]
    if kind is Any or (type(value) in _TYPES[kind] and (kind is not str or _is_text(value))):
        return None
    return f"{where} is {_shown(value)}"


def _container(value: Any, kind: type, inner: Any, where: str) -> str | None:
    if not isinstance(value, kind):
        return f"{where} is {_shown(value)}"
    named: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        if (odd := next((name for name in value if not _is_text(name)), None)) is not None:
            return f"{where} has the name {_shown(odd)}"
        named = [(f".{name}", each) for name, each in value.items()]
    elif isinstance(value, list):
        named = [(f"[{at}]", each) for at, each in enumerate(value)]
    if _are([each for _, each in named], inner):
        return None
    return next((found for at, each in named if (found := mismatch(each, inner, where + at))), None)


def _are(values: list[Any], kind: Any) -> bool:
    """Whether all are of a simple type, or lists of one; quickly: a histogram has thousands of pairs."""
    if kind in _TYPES and kind is not str:
        return set(map(type, values)) <= _TYPES[kind]
    return get_origin(kind) is list and all(
        type(each) is list and _are(each, get_args(kind)[0]) for each in values
    )


def _record(value: Any, kind: Any, where: str) -> str | None:
    if not isinstance(value, dict):
        return f"{where} is {_shown(value)}"
    for name, (field, required) in _fields(kind).items():
        if name not in value:
            if required:
                return f"{where or 'it'} lacks {name!r}"
        elif found := mismatch(value[name], field, f"{where}.{name}".lstrip(".")):
            return found
    return None


@cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """The type of each field, and whether it has to be there."""
    fields = {}
    for name, field in get_type_hints(kind, include_extras=True).items():
        marked = get_origin(field)
        # Where annotations are strings, `__required_keys__` does not know which are marked.
        required = marked is not NotRequired and name in kind.__required_keys__
        fields[name] = (get_args(field)[0] if marked is NotRequired else field, required)
    return fields


def _is_text(value: str) -> bool:
    """Whether it can stand in a table: nothing in it commands a terminal, and a file can hold it."""
    return _ODD.search(value) is None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
