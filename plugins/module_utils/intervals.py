# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ratios with an interval, and outliers, from few repeats. Pure.

Speeds and times are positive and vary by factors, so logarithms are compared: a ratio is the difference of two means of logarithms, its interval
that of Welch's t, which asks for no equal spread on both sides. One value against several gets the interval of a prediction, with the spread of the
several; one against one has no interval. tests/unit holds both against made-up noise of known size.
"""

from __future__ import annotations

import math

# What the largest distance from the median, in units of spread(), stays below in 95 of 100 samples of n normal values, by simulation of 200 000
# samples each (15 000 from 200 values on); benchmarks/outlier_bounds.py makes the table anew. The usual 3.5 is meant for many values.
OUTLIER_BOUNDS = {
    4: 6.92, 5: 7.88, 6: 5.55, 7: 5.89, 8: 4.89, 9: 5.10, 10: 4.57, 11: 4.67, 12: 4.34, 13: 4.43, 14: 4.22, 15: 4.28, 16: 4.12, 17: 4.18, 18: 4.06,
    19: 4.07, 20: 3.99, 30: 3.84, 31: 3.86, 50: 3.76, 51: 3.76, 100: 3.75, 101: 3.75, 200: 3.83, 201: 3.83, 500: 3.98, 501: 3.98}
MIN_HOSTS = 4


def median(values):
    """The middle of a list that is not empty."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2.0


def spread(values):
    """Median absolute deviation, of the size of a standard deviation for normal values."""
    middle = median(values)
    return 1.4826 * median([abs(value - middle) for value in values])


def _beta_fraction(a, b, x):
    """Continued fraction of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    result = d
    for m in range(1, 500):
        for numerator in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
                          -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            d = 1.0 + numerator * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + numerator / c
            c = c if abs(c) > tiny else tiny
            step = c * d
            result *= step
        if abs(step - 1.0) < 1e-14:
            break
    return result


def _beta(a, b, x):
    """Regularised incomplete beta function."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _beta_fraction(a, b, x) / a
    return 1.0 - front * _beta_fraction(b, a, 1.0 - x) / b


def t_below(t, freedom):
    """Probability that Student's t with so many degrees of freedom is below ``t``."""
    tail = 0.5 * _beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
    return 1.0 - tail if t > 0 else tail


def t_quantile(probability, freedom):
    """The value that Student's t is below with a probability of at least one half."""
    low, high = 0.0, 1.0
    while t_below(high, freedom) < probability and high < 1e12:
        low, high = high, high * 2.0
    for dummy in range(200):
        middle = (low + high) / 2.0
        if middle in (low, high):
            break
        if t_below(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return high


def _mean_and_variance(values):
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / (len(values) - 1) if len(values) > 1 else None


def ratio(new, old, confidence=0.95, fixed=False):
    """The ratio of two groups of positive numbers.

    :param bool fixed: ``old`` is one number of which nothing more is known, such as a published figure; only ``new`` has spread then.
    :returns: {"ratio", "low", "high", "freedom"}; low and high are None when the repeats do not tell.
    :raises ValueError: for an empty group, or a number that is not positive.
    """
    if not new or not old or min(list(new) + list(old)) <= 0:
        raise ValueError("a ratio needs positive numbers on both sides")
    (mean_new, var_new), (mean_old, var_old) = [_mean_and_variance([math.log(value) for value in group]) for group in (new, old)]
    difference = mean_new - mean_old
    result = {"ratio": math.exp(difference), "low": None, "high": None, "freedom": None}
    if fixed:
        if var_new is None:
            return result
        squared, freedom = var_new / len(new), len(new) - 1
    elif var_new is not None and var_old is not None:
        parts = (var_new / len(new), var_old / len(old))
        squared = sum(parts)
        below = parts[0] ** 2 / (len(new) - 1) + parts[1] ** 2 / (len(old) - 1)
        freedom = squared ** 2 / below if below > 0 else len(new) + len(old) - 2
    elif var_new is None and var_old is None:
        return result
    else:
        several, variance = (len(old), var_old) if var_new is None else (len(new), var_new)
        squared, freedom = variance * (1.0 + 1.0 / several), several - 1
    half = t_quantile(1.0 - (1.0 - confidence) / 2.0, freedom) * math.sqrt(squared)
    # A spread of several hundred per cent tells nothing, and its exponential is no number.
    half = min(half, 50.0)
    result.update(low=math.exp(difference - half), high=math.exp(difference + half), freedom=round(freedom, 2))
    return result


def verdict(found, higher_is_better, minimum):
    """"better", "equal", "worse" or "cannot tell" of a :func:`ratio`.

    "worse" and "better": the interval leaves 1 out and the ratio is beyond the smallest effect that matters. "equal": the interval lies within that
    effect. Everything else is not known.
    """
    if found["low"] is None:
        return "cannot tell"
    low, high, middle = found["low"], found["high"], found["ratio"]
    if not higher_is_better:
        low, high, middle = 1.0 / high, 1.0 / low, 1.0 / middle
    if 1.0 / (1.0 + minimum) <= low and high <= 1.0 + minimum:
        return "equal"
    if high < 1.0 and middle < 1.0 / (1.0 + minimum):
        return "worse"
    if low > 1.0 and middle > 1.0 + minimum:
        return "better"
    return "cannot tell"


def outlier_bound(count):
    """Bound of the score for so many values; between two entries of the table the more careful one."""
    sizes = [size for size in sorted(OUTLIER_BOUNDS) if size % 2 == count % 2]
    near = [size for size in sizes if size <= count][-1:] + [size for size in sizes if size >= count][:1]
    return max(OUTLIER_BOUNDS[size] for size in near)


def outliers(values, minimum):
    """Which of several values stand apart.

    :param dict values: {name: positive number}.
    :param float minimum: smallest effect that matters; less apart is no outlier however alike the others are.
    :returns: ({name: ratio to the median}, why nothing can be said or None).
    """
    if len(values) < MIN_HOSTS:
        return {}, "%d hosts are too few to name an outlier, %d are needed" % (len(values), MIN_HOSTS)
    if min(values.values()) <= 0:
        raise ValueError("outliers needs positive numbers")
    logs = dict((name, math.log(value)) for name, value in values.items())
    middle, deviation = median(logs.values()), spread(logs.values())
    apart = {}
    for name, value in logs.items():
        far = abs(value - middle)
        if far > math.log1p(minimum) and (deviation == 0 or far / deviation > outlier_bound(len(values))):
            apart[name] = math.exp(value - middle)
    return apart, None
