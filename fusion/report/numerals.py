"""How the report writes numbers."""

from __future__ import annotations

import math


def signed(value: float, digits: int = 2) -> str:
    """With its sign, a true minus, and none for what rounds to 0.

    >>> signed(0.5), signed(-1.234), signed(-0.001)
    ('+0.50', '−1.23', '0.00')
    """
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def percent(share: float) -> str:
    """
    >>> percent(0.9643)
    '96.4 %'
    """
    return f"{100 * share:.1f} %"


def fixed(value: float) -> str:
    """
    >>> fixed(0.12345), fixed(float("nan"))
    ('0.123', '-')
    """
    return "-" if math.isnan(value) else f"{value:.3f}"


def clock(seconds: float) -> str:
    """
    >>> clock(0), clock(75), clock(3675)
    ('0:00', '1:15', '1:01:15')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
