"""Sweeps over many cases: a few of every kind in the quick run, all of them in the exhaustive one."""

import pytest


def sweep(names, cases, quick):
    """As ``pytest.mark.parametrize``; the cases that ``quick`` does not pick are left to ``make test-exhaustive``.

    Args:
        names: of the arguments.
        cases: tuples of their values, or values of a single one; any iterable.
        quick: called with the values of a case, whether the quick run takes it.
    """
    params = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        params.append(pytest.param(*values, marks=() if quick(*values) else pytest.mark.exhaustive))
    return pytest.mark.parametrize(names, params)
