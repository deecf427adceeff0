"""Linear probes (Alain & Bengio 2016): what a linear map can read from frozen features. Scikit-learn's solvers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.trainer.data.tokens.lookups import Ints

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Fold:
    """Features [n, M] and what each row is: a class [n], or numbers [n, K]."""

    features: Floats
    truth: Ints | Floats


def classify(train: Fold, test: Fold) -> float:
    """Balanced accuracy on `test`: the mean over classes of their recall. The probe is a linear discriminant (Fisher's;
    one shared covariance, every class equally likely before it is seen), which has a closed form. NaN if training
    has fewer than two classes or there is nothing to score."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.metrics import recall_score

    count = len(np.unique(train.truth))
    if count < 2 or not len(test.truth):
        return math.nan
    centre, width = _standard(train.features)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1e-3, priors=np.full(count, 1 / count))
    model.fit((train.features - centre) / width, train.truth)
    guessed = model.predict((test.features - centre) / width)
    classes = np.unique(test.truth)
    return float(recall_score(test.truth, guessed, labels=classes, average="macro", zero_division=0.0))


def regress(train: Fold, test: Fold) -> float:
    """R² on `test`, mean over the K numbers, of a ridge regression on standardised features; NaN where either has
    fewer than two rows."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    if len(train.truth) < 2 or len(test.truth) < 2:
        return math.nan
    centre, width = _standard(train.features)
    model = Ridge(alpha=1.0).fit((train.features - centre) / width, train.truth)
    return float(r2_score(test.truth, model.predict((test.features - centre) / width)))


def control(positions: Ints, classes: int) -> Ints:
    """Labels of a control task (Hewitt & Liang 2019): each position has one random class, the same in every image. Its
    accuracy shows the probe's own capacity, not the features."""
    drawn = np.random.default_rng(0).integers(classes, size=int(positions.max(initial=0)) + 1)
    labels: Ints = drawn[positions]
    return labels


def _standard(features: Floats) -> tuple[Floats, Floats]:
    centre, width = features.mean(0), features.std(0)
    return centre, np.where(width > 1e-6, width, np.float32(1))
