"""Student's t by scipy, which is imported when it is asked for: it takes a second."""

from typing import Any


def student_t_p(t: Any, freedom: Any) -> Any:
    """Give the two-sided p value of Student's t: the probability of |T| >= |t|.

    Args:
        t: the statistic, a number or an array; infinite gives 0.
        freedom: degrees of freedom, above 0; infinite gives the normal's.

    Returns:
        0 to 1; nan for nan.
    """
    from scipy import stats

    return 2 * stats.t.sf(abs(t), freedom)


def student_t_quantile(level: float, freedom: Any) -> Any:
    """Give the t with P(|T| <= t) = ``level``: 12.7 for 0.95 and 1 degree of freedom.

    Args:
        level: above 0 and below 1.
        freedom: degrees of freedom, a number or an array, above 0; infinite gives the
            normal's.
    """
    from scipy import stats

    return stats.t.ppf((1 + level) / 2, freedom)
