"""Files of text as people's programs save them, read in one place; and what a wrong file is."""

from __future__ import annotations

import codecs
import stat
import zipfile
from pathlib import Path

from .errors import ClipmsaError

# By their marks; UTF-32's little-endian one begins with UTF-16's.
_MARKED = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_HEAD = 4096  # bytes that tell what a file is
HDF5 = "an HDF5 file, as feature stores and csd files are"
PYTORCH = "a PyTorch file, as checkpoints are"
_KINDS = (
    (b"\x89HDF\r\n\x1a\n", HDF5),
    (b"\xd0\xcf\x11\xe0", "a workbook or document of an old Office"),
    (b"%PDF", "a PDF"),
    (b"{\\rtf", "a rich text document"),
    (b"SQLite format 3", "an SQLite database"),
    (b"PAR1", "a Parquet file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
    (b"ID3", "a sound file (MP3)"),
    (b"fLaC", "a sound file (FLAC)"),
    (b"OggS", "a sound file (Ogg)"),
    *((b"\x80%c" % protocol, "a pickle") for protocol in range(2, 6)),
)
_ZIPPED = (  # by the end of a name in the archive
    ("xl/workbook.xml", "an Excel workbook"),
    ("word/document.xml", "a Word document"),
    ("META-INF/manifest.xml", "a LibreOffice document"),
    ("data.pkl", PYTORCH),
    (".npy", "an archive of NumPy arrays"),
)


def read_text(path: Path, error: type[ClipmsaError], expected: str, lines: str = "line") -> str:
    """The whole text of a file, without its byte order mark; line ends are as they are.

    UTF-8 is read, and UTF-16 and UTF-32 that say so by their mark, as PowerShell and Excel write.

    Args:
        error: the class of what is raised.
        expected: what the file has to be, as in "a CSV table".
        lines: what a line of it is called.

    Raises:
        ClipmsaError: it cannot be read, is another kind of file, or is in another encoding.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # a pipe would be waited for, and a device read without end
            raise error(f"{path}: is {_special(mode)}, must be {expected}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror})") from None
    encoding = next((name for mark, name in _MARKED if content.startswith(mark)), None)
    kind = None if encoding else _kind_of(path, content[:_HEAD])
    if kind is not None:
        raise error(f"{path}: is {kind}, must be {expected}")
    try:
        return content.decode(encoding or "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as fault:
        before = content[: fault.start].decode(encoding or "utf-8", "replace")
        line = before.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
        name = (encoding or "utf-8").upper().removesuffix("-LE").removesuffix("-BE")
        where = f"{path}: {lines} {line}"
        raise error(f"{where}: not {name}; save it in UTF-8, as {expected}") from None


def kind_of(path: Path) -> str | None:
    """What a file is, in words such as "an Excel workbook"; None where it may be a text, or other.

    >>> kind_of(Path(__file__).parent)
    'a folder'
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return _special(mode)
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:  # which reading it tells better
        return None
    return _kind_of(path, head) if head else "empty"


def wrong_kind(path: Path, expected: str) -> str | None:
    """The sentence on a file that is of another kind than `expected`; None where it may be that."""
    kind = kind_of(path)
    return None if kind is None else f"{path}: is {kind}, must be {expected}"


def _special(mode: int) -> str:
    return "a folder" if stat.S_ISDIR(mode) else "no regular file but a pipe or device"


def _kind_of(path: Path, head: bytes) -> str | None:
    for start, kind in _KINDS:
        if head.startswith(start):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _zipped(path)
    if head[4:8] == b"ftyp":
        return "a video or sound file (MP4)"
    if head.startswith(b"RIFF"):
        return "a sound file (WAV)" if head[8:12] == b"WAVE" else "a video (AVI)"
    marked = head.startswith(tuple(mark for mark, _ in _MARKED))
    if not marked and head.count(0) * 4 > len(head):
        return "a binary file, or a text in UTF-16 without a byte order mark"
    return None


def _zipped(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return "a damaged ZIP archive"
    for end, kind in _ZIPPED:
        if any(name.endswith(end) for name in names):
            return kind
    return "a ZIP archive"
