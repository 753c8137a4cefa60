"""Groups of settings: the type and range of a value stand with it, and a wrong one is one SettingsError."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from keyreid.pipeline.errors import SettingsError


class Settings(BaseModel):
    """Base of every group: frozen, and strict but for whole numbers as floats and lists as tuples.

    Raises:
        SettingsError: an unknown key (with the nearest known one), one that is missing, or a value of another type or
            out of range; the first that is found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    section: ClassVar[str]  # of a config file

    def __init__(self, **values: Any) -> None:
        for key, value in values.items():
            if isinstance(value, int) and abs(value) >= 1 << 63:
                raise SettingsError(f"{self.section}.{key} is {reprlib.repr(value)}", "a number below 2^63")
        tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        try:
            super().__init__(**tuples)
        except ValidationError as error:
            refusal = self._refusal(error.errors(include_url=False)[0])
            raise refusal from None  # pydantic's own text repeats the value, however large

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON can hold them."""
        return self.model_dump(mode="json")

    @classmethod
    def unknown_key(cls, key: str) -> SettingsError:
        known = cls.model_fields
        return SettingsError(f"unknown key {cls.section}.{key}", f"one of {', '.join(known)}", nearest(key, known))

    @classmethod
    def _refusal(cls, detail: ErrorDetails) -> SettingsError:
        key, kind = str(detail["loc"][0]), detail["type"]
        if kind == "extra_forbidden":
            return cls.unknown_key(key)
        if kind == "missing" and len(detail["loc"]) == 1:
            return SettingsError(f"{cls.section}.{key} is missing", cls._expected(key, kind))
        return SettingsError(f"{cls.section}.{key} is {reprlib.repr(detail['input'])}", cls._expected(key, kind))

    @classmethod
    def _expected(cls, key: str, kind: str) -> str:
        """What a field takes: its description, or else its choices, bounds or type."""
        field = cls.model_fields[key]
        bounds = {name: getattr(bound, name) for bound in field.metadata for name in ("ge", "gt", "le", "lt")
                  if hasattr(bound, name)}  # fmt: skip
        if field.description:
            return field.description
        if get_origin(field.annotation) is Literal:
            return f"one of {', '.join(choice for choice in get_args(field.annotation) if choice)}"
        if kind == "finite_number":
            return "a finite number"
        if kind.startswith(("greater_than", "less_than")):
            return _range(**bounds)
        if get_origin(field.annotation) is tuple:
            kinds = get_args(field.annotation)
            number = "" if ... in kinds else f"{len(kinds)} "
            return f"a list of {number}{'text' if kinds[0] is str else 'numbers'}"
        return f"a value of type {getattr(field.annotation, '__name__', field.annotation)}"


def nearest(word: str, known: Iterable[str]) -> str:
    """A question that names the nearest known word, or ""."""
    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else ""


def _range(ge: float | None = None, gt: float | None = None, le: float | None = None, lt: float | None = None) -> str:
    if ge is not None and le is not None:
        return f"between {ge:g} and {le:g}"
    low = f"{ge:g} or more" if ge is not None else f"more than {gt:g}" if gt is not None else ""
    high = f"{le:g} or less" if le is not None else f"less than {lt:g}" if lt is not None else ""
    return " and ".join(part for part in (low, high) if part)
