"""How likely each line of traffic is a copy, given what stands around it.

"Two bolts, answer 3" alone proves nothing. In a file of which nine lines in ten are recognised beyond doubt as
copies of one suite, it does. So the share of copies is estimated, by maximum likelihood, in windows of neighbouring
lines (empirical Bayes: Efron, Large-Scale Inference, 2010, chapter 5), and only where several lines are beyond doubt by
themselves; everywhere else it is taken to be small, and a line has to stand alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOWS = (64, 512, 4096)  # lines; copies may lie side by side or be strewn
ALONE = 0.01  # share of copies assumed where nothing is known
SURE = 0.9  # probability from which a line counts as recognised by itself
CROWD = 5  # different cases recognised in a window before the window counts ...
CROWD_SHARE = 0.05  # ... and the share of its lines
MOST = 0.98  # the share of copies is never taken to be higher
COPY = 0.8  # probability from which a line is called a copy


def alone(evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability that each line is a copy, by itself; ``evidence`` in bits."""
    return posterior(evidence, np.full(len(evidence), ALONE))


def posterior(evidence: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    odds = np.exp2(np.clip(evidence, -60, 60)) * share / (1 - share)
    return odds / (1 + odds)


def together(evidence: NDArray[np.float64], cases: NDArray[np.int64], sure: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probability that each line is a copy, beside its neighbours.

    ``evidence`` [lines] bits, ``cases`` [lines] the likeliest case of each, ``sure`` [lines] those beyond doubt.
    """
    share = np.full(len(evidence), ALONE)
    for size in WINDOWS:
        for start in range(0, max(1, len(evidence) - size // 2), size // 2):
            window = slice(start, start + size)
            known = len(np.unique(cases[window][sure[window]]))
            if known >= max(CROWD, CROWD_SHARE * len(evidence[window])):
                share[window] = np.maximum(share[window], _share(evidence[window]))
    return posterior(evidence, share)


def _share(evidence: NDArray[np.float64]) -> float:
    """The share of copies under which these lines are likeliest (expectation maximisation)."""
    share = 0.5
    for _ in range(40):
        share = float(np.clip(posterior(evidence, np.full(len(evidence), share)).mean(), ALONE, MOST))
    return share
