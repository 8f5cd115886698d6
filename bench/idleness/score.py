"""Brier scores, calibration and coverage of what was foretold."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from idleness.race import EVERYBODY, HORIZONS_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idleness.race import Quantiles, Question

BINS = 10


def brier(questions: Sequence[Question]) -> dict[str, float]:
    """Mean squared error of the probabilities (Brier, 1950); 0 is perfect."""
    return {
        name: fmean((question.told[place] - question.stayed) ** 2 for question in questions)
        for place, name in enumerate(EVERYBODY)
    }


def skill(scores: dict[str, float], name: str, against: str) -> float:
    """Brier skill score: the share of the other's error that is gone; below 0: worse than the other."""
    return 1 - scores[name] / scores[against] if scores[against] > 0 else 0.0


def by_horizon(questions: Sequence[Question]) -> dict[float, dict[str, Any]]:
    found: dict[float, dict[str, Any]] = {}
    for horizon_s in HORIZONS_S:
        asked = [question for question in questions if question.horizon_s == horizon_s]
        if asked:
            found[horizon_s] = {
                "questions": len(asked),
                "stayed_ratio": fmean(question.stayed for question in asked),
                "brier": brier(asked),
            }
    return found


def reliability(questions: Sequence[Question]) -> dict[str, dict[str, Any]]:
    """For everybody: in each tenth of what was foretold, its mean and how often it came true; and the mean distance of the two,
    weighted by how often (expected calibration error)."""
    found: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(EVERYBODY):
        bins: list[list[Question]] = [[] for _ in range(BINS)]
        for question in questions:
            bins[min(BINS - 1, int(question.told[place] * BINS))].append(question)
        rows = [
            {
                "foretold": fmean(question.told[place] for question in inside),
                "came_true": fmean(question.stayed for question in inside),
                "questions": len(inside),
            }
            for inside in bins
            if inside
        ]
        error = sum(abs(row["foretold"] - row["came_true"]) * row["questions"] for row in rows)
        found[name] = {"rows": rows, "error": error / max(1, len(questions))}
    return found


def coverage(quantiles: Sequence[Quantiles]) -> list[float] | None:
    """How often the residual time was below our 10, 50 and 90 % quantiles, of those where that is known. None: never asked."""
    shares: list[float] = []
    for place in range(3):
        below = [
            one.residual_s <= one.told_s[place]
            for one in quantiles
            if one.returned or one.residual_s > one.told_s[place]
        ]
        if not below:
            return None
        shares.append(fmean(below))
    return shares
