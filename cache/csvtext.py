"""CSV that a spreadsheet may open: no text in it starts a formula, and it reads back as it was.

A spreadsheet takes a cell that begins with =, +, - or @ for a formula, which can call programs and
fetch addresses; quotes around the cell do not help. Texts that begin so get an apostrophe before
them, the spreadsheets' own mark of a text. Reading takes one away where it finds that.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

# Also what spreadsheets skip before they look, and the wide forms of East Asian keyboards. Behind
# apostrophes too, so that a text of the file's own that looks guarded reads back as it was. A name
# behind a sign calls nothing: ids of MOSEI such as -3g5yACwYnA$_$10 stay as others know them.
_FORMULA = re.compile("'*(?:[=@\t\r\n\uff1d\uff0b\uff0d\uff20]|[+-](?![\\w$.-]*\\Z))")


def guarded(cell: object) -> object:
    """A cell to write: texts that would start a formula after an apostrophe, all else as it is.

    >>> guarded("=1+1"), guarded("-2+3"), guarded("-id$_$1"), guarded(-1.5)
    ("'=1+1", "'-2+3", '-id$_$1', -1.5)
    """
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """What was written.

    >>> unguarded("'=1+1"), unguarded("'tis"), unguarded("-1.5")
    ('=1+1', "'tis", '-1.5')
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_line(cells: Iterable[object]) -> str:
    """A row as CSV; only numbers may begin with a sign."""
    text = io.StringIO()
    # Only where it ends lines with both does the writer quote a cell that holds either.
    csv.writer(text, lineterminator="\r\n").writerow(map(guarded, cells))
    return text.getvalue().removesuffix("\r\n") + "\n"


def csv_text(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table as CSV."""
    return "".join(map(csv_line, (header, *rows)))
