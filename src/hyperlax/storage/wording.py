"""Numbers of things and durations, in words."""


def counted(number: int, thing: str) -> str:
    """Return "1 lane", "2 lanes"."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def duration(seconds: float, decimals: int = 0) -> str:
    """Return a duration in its two largest units: "12 s", "3 min 5 s", "2 h 5 min".

    Below a minute the seconds have so many `decimals`.
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.{decimals}f} s"
