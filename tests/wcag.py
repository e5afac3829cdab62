"""What can be read, as the accessibility guidelines define it (WCAG 2.2 AA)."""

from __future__ import annotations

import re
from typing import Final

TEXT_CONTRAST: Final = 4.5
SHAPE_CONTRAST: Final = 3.0


def luminance(colour: str) -> float:
    """Of `rgb(1, 2, 3)`, as the accessibility guidelines define it (WCAG 2.2, relative luminance)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
