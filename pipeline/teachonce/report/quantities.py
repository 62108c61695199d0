"""Numbers as people write them."""


def format_duration(value_s: float) -> str:
    """A duration: 42.1 s, 3 min 40 s, 2 h 05 min."""
    if value_s < 60:
        return f"{value_s:.1f} s"
    minutes, rest = divmod(round(value_s), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_weights(count: int) -> str:
    """A count of weights: 93,204, 0.47 M, 5.7 M, 86 M."""
    millions = count / 1e6
    if millions < 0.1:
        return f"{count:,}"
    return f"{millions:.0f} M" if millions >= 10 else f"{millions:.2g} M"


def format_bytes(count: float) -> str:
    """A size: 1.4 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_percent(share: float | None) -> str:
    """A share: 97.41 %; nothing where there is none."""
    return "" if share is None else f"{100 * share:.2f} %"


def format_count(value: float) -> str:
    """A round number of an axis: 200, 5 k, 1 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"
