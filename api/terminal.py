"""Texts for people: on the terminal, where nothing that a file says is obeyed.

Ids, texts, names, paths and errors come from files that anybody may have written. `shown` is what
all of them go through: a console here applies it to every string that it prints, in tables too, and
takes none for markup; `styled` is how our own words get their colours.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

# What a terminal acts upon, or shows other than it stands: control characters of ASCII and of
# ISO 6429, marks that turn the direction of what follows, halves of a character.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str) -> str:
    r"""A text with its control characters spelt out, so that a terminal shows and does not obey.

    >>> print(shown("\x1b[31mred"))
    \x1b[31mred
    """
    return _ACTING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown_in_json(text: str) -> str:
    r"""The same of a JSON text, which stays one, of the same values.

    >>> print(shown_in_json('"\x9b31m"'))
    "\u009b31m"
    """
    return _ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Terminal(Console):
    """A console to which every string is text: nothing in it sets a colour, a link or a title."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text), **options)


# Where there is no terminal to say how wide it is, tables are not cut.
out = Terminal(width=None if sys.stdout.isatty() else 160)
err = Terminal(stderr=True, width=None if sys.stderr.isatty() else 160)


def styled(message: str, *values: object) -> Text:
    """Words of our own with rich's markup; `{}` in them takes values, each a line of plain text."""
    rest, line = Text.from_markup(message, emoji=False), Text()
    for value in values:
        place = rest.plain.index("{}")
        style = rest.get_style_at_offset(err, place)
        line.append_text(rest[:place]).append(shown(str(value)).replace("\n", r"\n"), style)
        rest = rest[place + 2 :]
    return line.append_text(rest)


def note(message: str, *values: object) -> None:
    """One line to stderr, as `styled` makes it."""
    err.print(styled(message, *values), soft_wrap=True, highlight=False)
