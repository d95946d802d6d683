"""Colours that can be told apart by most eyes and read on both grounds, measured."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from steepest.reporting.palette import COLORS, DASHES, SYMBOLS, look_of

# Machado, Oliveira & Fernandes, IEEE TVCG 15:1291 (2009), severity 1.0, on linear RGB.
EYES = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
}  # fmt: skip
GROUNDS = {"light": "#ffffff", "dark": "#14171a"}


def linear(color: str) -> np.ndarray:
    c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def luminance(color: str) -> float:
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Ottosson's OKLab (2020) of linear RGB."""
    to_lms = np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                       [0.2119034982, 0.6806995451, 0.1073969566],
                       [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
    to_lab = np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                       [1.9779984951, -2.4285922050, 0.4505937099],
                       [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip
    return to_lab @ np.cbrt(to_lms @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("eye", EYES)
def test_the_first_six_colours_are_far_apart_for_every_eye(eye: str) -> None:
    seen = [oklab(EYES[eye] @ linear(color)) for color in COLORS[:6]]
    nearest = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))
    assert nearest > 0.09  # a just noticeable difference is about 0.02


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("color", COLORS)
def test_every_colour_has_contrast_on_both_grounds(color: str, ground: str) -> None:
    a, b = sorted((luminance(color), luminance(GROUNDS[ground])))
    assert (b + 0.05) / (a + 0.05) >= 3.0


def test_arms_that_share_a_colour_differ_in_dash_or_marker() -> None:
    looks = [look_of(arm) for arm in range(24)]
    assert len({(look.color, look.symbol, look.dash) for look in looks}) == 24
    assert len(set(SYMBOLS)) == 8
    assert len(set(DASHES)) == 4
