"""Ctrl-C: a verb ends within two seconds, without a traceback, and says what is kept.

While the command loads, Ctrl-C ends it as it ends any program: there is nothing to clean up yet.
Later a verb unwinds, so that what was made is filed and temporary files go. What that would have to
wait for, such as a batch in an encoder, is not waited for: files appear whole or not at all,
however the process ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

_GRACE = 1.5  # seconds for unwinding
STATUS = 130  # of a process that Ctrl-C ended, by convention of shells

_came, _told = threading.Event(), threading.Event()


def end_at_once() -> None:
    """From here on Ctrl-C ends the process; not where it is ignored, as under nohup."""
    ours = threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def unwind(kept: str) -> None:
    """From here on Ctrl-C is a KeyboardInterrupt, and soon after it the end, with these words.

    Only where `end_at_once` has had an effect. A second Ctrl-C ends the process at once.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        return
    # A handler has to wait until the main thread is back from whatever it has called; what Python
    # writes to this socket is heard by a thread of ours meanwhile.
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    signal.set_wakeup_fd(pythons.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, _interrupt)

    def end() -> None:
        while signal.SIGINT not in ours.recv(64):
            pass
        _came.set()
        time.sleep(_GRACE)
        tell(kept)
        os._exit(STATUS)

    threading.Thread(target=end, daemon=True).start()


def came() -> bool:
    """Whether there was a Ctrl-C: whatever goes wrong since then is its doing."""
    return _came.is_set()


def tell(kept: str) -> None:
    """Say once that the verb was interrupted, and what is kept."""
    if _told.is_set():
        return
    _told.set()
    from clipmsa.terminal import err, note

    err.show_cursor(True)  # which a bar that could not be taken down has hidden
    note("interrupted; {}", kept)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _came.set()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.unraisablehook = lambda _: None  # it may hit where Python can only print it
    raise KeyboardInterrupt
