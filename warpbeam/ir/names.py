"""Names that nothing else has."""

from __future__ import annotations


def fresh_name(base: str, taken: set[str]) -> str:
    """`base`, or `base` with the first free number appended; the result is taken from now on."""
    name, count = base, 0
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    taken.add(name)
    return name
