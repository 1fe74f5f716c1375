"""Content of files that anybody may have written, checked by pydantic and told in one line."""

from __future__ import annotations

from typing import Annotated

from pydantic import FiniteFloat, PlainValidator, ValidationError

from .errors import ClipmsaError

_LONGEST = 200  # of what a file says, in an error's one line


def one_line(error: BaseException) -> str:
    """What is wrong and where in the content: of many faults the first.

    >>> from pydantic import TypeAdapter
    >>> try:
    ...     TypeAdapter(dict[str, int]).validate_python({"d": "x"})
    ... except ValueError as error:
    ...     print(one_line(error))
    d: must be a valid integer, unable to parse string as an integer, got 'x'
    """
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        said = first["msg"].replace("Input should", "must").removeprefix("Value error, ")
        got = "" if first["type"] == "missing" else f", got {_shown(first['input'])}"
        return f"{where}: {said}{got}" if where else f"{said}{got}"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ClipmsaError):
        return text
    return f"no {text[:_LONGEST]}" if isinstance(error, KeyError) else text[:_LONGEST]


def _shown(value: object) -> str:
    kept = value if isinstance(value, str | int | float | bool | None) else type(value).__name__
    text = repr(kept)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ValueError(f"must be a number of at most {LARGEST:g}, or null")
    return float(value)


LARGEST = 1e30  # of a score or a metric: sums and squares of more do not end as numbers
Number = Annotated[FiniteFloat | None, PlainValidator(_number)]  # null: JSON has no NaN
