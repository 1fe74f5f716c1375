"""The library's errors in the words of the command line.

A message of the library names an argument as Python has it, between backticks: `out`,
`overwrite=True`, `weights='random'`. Here it becomes the option of the verb in use, as the verb
itself declares it: --out, --overwrite, --weights random. What the verb has no option for stays.
"""

from __future__ import annotations

import ast
import re
from functools import cache

_ARGUMENT = re.compile(r"`(\w+)(?:=([^`\n]*))?`")


def as_flags(message: str, verb: str) -> str:
    """The message, with the arguments that are options of a verb spelt as these.

    >>> as_flags("choose another `out`, or `overwrite=True`", "train")
    'choose another --out, or --overwrite'
    >>> as_flags("or `weights='random'`; see `clipmsa weights list`", "extract")
    'or --weights random; see `clipmsa weights list`'
    """
    options = _options(verb)

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in options:
            return found[0]
        return options[name] if value in (None, "True") else f"{options[name]} {_plain(value)}"

    return _ARGUMENT.sub(flag, message)


@cache
def _options(verb: str) -> dict[str, str]:
    """By argument, the option of a verb."""
    import typer

    from .verbs import command

    commands = getattr(typer.main.get_command(command), "commands", {})
    found = commands[verb].params if verb in commands else []
    return {p.name: p.opts[0] for p in found if p.param_type_name == "option" and p.name}


def _plain(value: str) -> str:
    """A text of Python's without its quotes; anything else as it is."""
    try:
        read = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return read if isinstance(read, str) else value
