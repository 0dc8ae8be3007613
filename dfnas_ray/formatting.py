"""Numbers formatted for readers: few digits, with their unit."""

from __future__ import annotations

import math
from datetime import UTC, datetime

_NO_VALUE = "–"


def count(value: float | None) -> str:
    """Return a whole number with thousands separators: 1,600."""
    return _NO_VALUE if value is None else f"{value:,.0f}"


def quantity(value: float | None) -> str:
    """Return three significant digits with a suffix: 802 k, 1.81 M, 4.09 G."""
    if value is None:
        return _NO_VALUE
    for factor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{_three_digits(value / factor)} {suffix}"
    return f"{value:.0f}"


def number(value: float | None) -> str:
    """Return a measured value with three significant digits, without an exponent where it can be avoided."""
    if value is None or not math.isfinite(value):
        return _NO_VALUE
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return _minus(_three_digits(value))
    return _minus(f"{value:.2e}")


def percent(value: float | None, decimals: int = 1) -> str:
    """Return a share: 97.6 %."""
    return _NO_VALUE if value is None or not math.isfinite(value) else f"{value:.{decimals}%}".replace("%", "\u202f%")


def fixed(value: float, decimals: int = 3) -> str:
    """Return a number with this many decimals, for columns whose values are compared: 0.578."""
    return _minus(f"{value:.{decimals}f}")


def points(difference: float) -> str:
    """Return the difference of two shares in percentage points, with its sign: +0.6."""
    return _minus(f"{100 * difference:+.1f}")


def duration(seconds: float | None) -> str:
    """Return a duration: 0.3 s, 37 s, 3 min 19 s, 2 h 05 min, 1 d 03 h."""
    if seconds is None:
        return _NO_VALUE
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def size(num_bytes: float | None) -> str:
    """Return a file size: 885 kB, 1.2 GB."""
    return _NO_VALUE if num_bytes is None else f"{quantity(num_bytes)}B" if num_bytes >= 1000 else f"{num_bytes:.0f} B"


def moment(timestamp: float | None) -> str:
    """Return a date and time in UTC: 2026-11-23 21:55 UTC."""
    return _NO_VALUE if timestamp is None else datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M UTC")


def plural(num: int, singular: str, plural_form: str | None = None) -> str:
    """Return a number and its noun: 1 shard, 4 shards."""
    return f"{num:,} {singular if num == 1 else plural_form or singular + 's'}"


def capitalised(text: str) -> str:
    """Return the text with its first letter capitalised."""
    return text[:1].upper() + text[1:]


def _three_digits(value: float) -> str:
    rounded = float(f"{value:.3g}")
    decimals = 0 if rounded == 0 else max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{decimals}f}"


def _minus(text: str) -> str:
    return text.replace("-", "−")


def brief(text: str, width: int = 40) -> str:
    """Return the text; one longer than ``width`` characters is cut to its beginning and its end."""
    if len(text) <= width:
        return text
    head = (width - 1) * 2 // 3
    return f"{text[:head]}…{text[head + 1 - width :]}"
