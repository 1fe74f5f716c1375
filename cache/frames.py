"""Results that say themselves in one line, and that a notebook shows with their table."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd  # which is loaded when a table is asked for

_ROWS = 20  # of a table in a notebook; the middle of a longer one is left out
_CHARACTERS = 80  # of a text in it


class Framed:
    """What has a table: `to_frame` gives it, and its `repr` the line above it."""

    def to_frame(self) -> pd.DataFrame:
        """The table, a copy of one's own."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        """What a notebook shows; texts and names come from files, and are no markup."""
        import pandas as pd

        with pd.option_context("display.max_colwidth", _CHARACTERS):
            table = self.to_frame().to_html(max_rows=_ROWS, border=0, float_format="{:.3f}".format)
        return f"<p><code>{escape(repr(self))}</code></p>\n{table}"
