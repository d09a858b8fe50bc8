"""What is as reported: verdicts, orders and rank agreement (Kendall's τ). Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence


def reproduced(gap: float | None, tolerance: float | None) -> str:
    if gap is None or tolerance is None:
        return ""
    if abs(gap) <= tolerance + 1e-9:
        return f"reproduced within {tolerance:g}"
    return "above" if gap > 0 else "below"


def orders(pairs: Sequence[tuple[float, float] | None]) -> list[str]:
    """For each row, beside how many of the other rows it stands as reported: the values themselves do not compare."""
    texts = []
    for index, pair in enumerate(pairs):
        others = [other for at, other in enumerate(pairs) if other and at != index]
        if pair and others:
            same = sum((pair[0] > a) - (pair[0] < a) == (pair[1] > b) - (pair[1] < b) for a, b in others)
            texts.append(f"order {same}/{len(others)}")
        else:
            texts.append("")
    return texts


def tau(both: Sequence[tuple[float, float]]) -> str:
    if len(both) < 2:
        return f"– ({len(both)} to compare)"
    tau = rank_agreement(*zip(*both, strict=True))
    return f"{'all tied' if tau is None else f'{tau:+.2f}'} ({len(both)} methods)"


def rank_agreement(reported: Sequence[float], measured: Sequence[float]) -> float | None:
    """Kendall's τ-b of two lists of scores; None where one list is all ties and so has no order."""
    from scipy.stats import kendalltau  # a second to import, and only tables with measured numbers need it

    tau = float(kendalltau(reported, measured).statistic)
    return tau if tau == tau else None  # NaN is not equal to itself
