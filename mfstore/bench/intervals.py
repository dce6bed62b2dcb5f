"""How sure a mean rate is, and the ratio of two. Pure.

Rates of repeated measurements differ by factors rather than by amounts (a neighbour that takes half of the CPUs halves
them), so their logarithms are what is averaged, and the mean is the geometric one. Its interval is Student's, with the
spread of the repetitions and their number less one as degrees of freedom; that of a ratio is Welch's, who does not ask
that both have the same spread. As Georges, Buytaert and Eeckhout put it for benchmarks: "Statistically Rigorous Java
Performance Evaluation", OOPSLA 2007; with ratios, Kalibera and Jones: "Rigorous Benchmarking in Reasonable Time",
ISMM 2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, lgamma, log, sqrt
from statistics import fmean, variance

CONFIDENCE = 0.95
METHOD = "Student's t on the logarithms of the rates"


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a mean, or a ratio, lies with ``CONFIDENCE``."""

    mean: float
    """Geometric."""
    low: float
    high: float


def interval(rates: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Of the mean of repeated rates; None for fewer than two, or where one of them was nothing."""
    if len(rates) < 2 or min(rates) <= 0:
        return None
    logs = [log(rate) for rate in rates]
    mean = fmean(logs)
    half = t_quantile((1 + confidence) / 2, len(logs) - 1) * sqrt(variance(logs) / len(logs))
    return Interval(exp(mean), exp(mean - half), exp(mean + half))


def ratio_interval(before: Sequence[float], after: Sequence[float], confidence: float) -> Interval | None:
    """Of the mean of ``after`` by that of ``before``; None as above."""
    if min(len(before), len(after)) < 2 or min(*before, *after) <= 0:
        return None
    old, new = [log(rate) for rate in before], [log(rate) for rate in after]
    parts = variance(old) / len(old), variance(new) / len(new)
    both, difference = sum(parts), fmean(new) - fmean(old)
    if not both:
        return Interval(exp(difference), exp(difference), exp(difference))
    # Welch and Satterthwaite.
    freedom = both**2 / (parts[0] ** 2 / (len(old) - 1) + parts[1] ** 2 / (len(new) - 1))
    half = t_quantile((1 + confidence) / 2, freedom) * sqrt(both)
    return Interval(exp(difference), exp(difference - half), exp(difference + half))


def t_quantile(share: float, freedom: float) -> float:
    """Of Student's distribution, for shares of a half and above: by bisection of the distribution, to 1e-9 of it."""
    if share <= 0.5:
        return 0.0
    low, high = 0.0, 1.0
    while _t_below(high, freedom) < share and high < 1e12:
        low, high = high, high * 2
    for _ in range(200):
        middle = (low + high) / 2
        if high - low <= 1e-9 * high:
            break
        low, high = (middle, high) if _t_below(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def _t_below(value: float, freedom: float) -> float:
    """The share below a value that is not negative."""
    return 1 - _beta(freedom / 2, 0.5, freedom / (freedom + value * value)) / 2


def _beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function by its continued fraction (DLMF 8.17.22), after Lentz."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, 1 - x)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(1 - x)) / a
    found, c, d, least = 1.0, 1.0, 0.0, 1e-300
    last = inf
    for step in range(1000):
        m = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 + term * d
        d = 1 / (d if abs(d) > least else least)
        c = 1 + term / c
        c = c if abs(c) > least else least
        found *= c * d
        if abs(c * d - 1) < 1e-14 and abs(last - 1) < 1e-14:
            break
        last = c * d
    return front * (found - 1)
