"""The distributions that the tests need, in whole numbers or to float64, no scipy."""

import math

import numpy as np

_EXACT = 1000
"""Tosses up to which tails are summed in whole numbers, which takes their square."""


def binomial_probability(count: int, trials: int) -> float:
    """Give the probability of ``count`` heads in ``trials`` tosses of a fair coin."""
    return math.comb(trials, count) / 2**trials


def binomial_tail(count: int, trials: int) -> float:
    """Give the probability of at most ``count`` heads in tosses of a fair coin."""
    if trials > _EXACT:
        k = np.arange(1, trials + 1)
        factorials = np.concatenate([[0.0], np.cumsum(np.log(k))])
        part = factorials[: count + 1] + factorials[trials - count :][::-1]
        return float(np.exp(factorials[-1] - part - trials * math.log(2)).sum())
    return sum(math.comb(trials, k) for k in range(count + 1)) / 2**trials


def student_t_p(t: float, freedom: float) -> float:
    """Give the two-sided p value of Student's t: the probability of |T| >= |t|.

    I(x; freedom / 2, 1 / 2) at x = freedom / (freedom + t^2), where I is the
    regularised incomplete beta function.

    Args:
        t: the statistic; infinite gives 0.
        freedom: degrees of freedom, above 0; infinite gives the normal's.

    Returns:
        0 to 1; nan for nan.
    """
    if math.isnan(t) or math.isnan(freedom):
        return float("nan")
    if math.isinf(t):
        return 0.0
    if math.isinf(freedom):
        return math.erfc(abs(t) / math.sqrt(2))
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def student_t_quantile(level: float, freedom: float) -> float:
    """Give the t with P(|T| <= t) = ``level``: 12.7 for 0.95 and 1 degree of freedom.

    Args:
        level: above 0 and below 1.
        freedom: degrees of freedom, above 0; infinite gives the normal's.
    """
    low, high = 0.0, 1.0
    while student_t_p(high, freedom) > 1 - level:
        high *= 2
    for _ in range(80):  # halved to the last bit
        middle = (low + high) / 2
        if student_t_p(middle, freedom) > 1 - level:
            low = middle
        else:
            high = middle
    return high


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I(x; a, b), by its continued fraction.

    Source: Abramowitz & Stegun 1964, 26.5.8, evaluated by Lentz's method.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - _incomplete_beta(1 - x, b, a)
    log_front = a * math.log(x) + b * math.log1p(-x) - math.log(a)
    log_front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = fraction
        for term in (even, odd):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            fraction *= c * d
        if abs(fraction - before) < 1e-15 * abs(fraction):
            break
    return math.exp(log_front) * fraction
