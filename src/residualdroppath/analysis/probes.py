"""What can be read from a layer: labels by a linear probe, other layers and the input by a linear map.

Fitted on training rows, measured on held-out rows, with the same search for the regularisation for every layer and
every model.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from scipy.stats import entropy
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler
from sklearn.random_projection import SparseRandomProjection

from ..errors import UserError
from .arrays import Floats, as_labels, as_matrix

INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
RIDGE_PENALTIES = tuple(10.0**power for power in range(-6, 3))  # per row, of features with variance 1
VALIDATION_SHARE = 5  # one row of five


@dataclass(frozen=True)
class Probe:
    """Held-out cross-entropy in `bits`, at least 0 and above the label entropy for a probe that misleads; `accuracy`
    in [0, 1]."""

    bits: float
    accuracy: float


def probe(
    features_train: ArrayLike,
    labels_train: ArrayLike,
    features_test: ArrayLike,
    labels_test: ArrayLike,
    seed: int = 0,
) -> Probe:
    """Multinomial logistic regression on standardised features, as a measure of usable information.

    H(Y) - bits estimates V-information for V the affine classifiers (Xu et al. 2020, arXiv 2002.10689); `accuracy`
    over layers is how early the answer can be read. The penalty is chosen on a fifth of the training rows:
    from the strongest on, for as long as their cross-entropy falls. Then all training rows are fitted.
    """
    train, test = _pair("features", features_train, features_test)
    labels, held_out = (
        as_labels("labels_train", labels_train, len(train)),
        as_labels("labels_test", labels_test, len(test)),
    )
    classes, indices = np.unique(labels, return_inverse=True)
    unknown = sorted(set(held_out.tolist()) - set(classes.tolist()))
    if len(classes) < 2 or len(classes) == len(labels) or unknown:
        raise UserError(
            f"`labels_train` must hold two labels or more, all of `labels_test` among them, and some label twice, got "
            f"{len(classes)} labels on {len(labels)} rows, and {len(unknown)} others in `labels_test`; "
            "take more inputs or fewer classes."
        )
    fit, validation = _split(indices, seed)
    best, lowest = INVERSE_PENALTIES[0], np.inf
    chosen = _Classifier(train[fit], indices[fit])
    for inverse_penalty in INVERSE_PENALTIES:
        chosen.fit(inverse_penalty)
        bits = chosen.bits(train[validation], indices[validation])
        if bits >= lowest:
            break
        best, lowest = inverse_penalty, bits
    final = _Classifier(train, indices)
    final.fit(best)
    answers = np.searchsorted(classes, held_out)
    return Probe(final.bits(test, answers), float((final.scores(test).argmax(1) == answers).mean()))


def label_entropy_bits(labels: ArrayLike) -> float:
    """Plug-in entropy of the labels in bits: what a probe's `bits` fall from."""
    return float(entropy(np.unique(np.asarray(labels), return_counts=True)[1], base=2))


def reconstruction_r2(
    features_train: ArrayLike, targets_train: ArrayLike, features_test: ArrayLike, targets_test: ArrayLike
) -> float:
    """Share of the variance of held-out targets that a ridge regression from the features explains; at most 1.

    R2 = 1 - sum (y - prediction)^2 / sum (y - mean y)^2, sums over rows and columns, so that columns count by their
    variance; negative where the prediction is worse than the mean. The penalty is chosen by leave-one-out on the
    training rows.
    """
    train, test = _pair("features", features_train, features_test)
    targets, expected = _pair("targets", targets_train, targets_test)
    for name, own, rows in (("train", targets, train), ("test", expected, test)):
        if len(own) != len(rows):
            raise UserError(
                f"`targets_{name}` must have the rows of `features_{name}`, {len(rows)}, got {len(own)}; "
                "take both from the same inputs."
            )
    if not np.ptp(expected, axis=0).any():
        raise UserError("`targets_test` must vary over its rows, got constants; leave out what is constant.")
    scaler = StandardScaler().fit(train)
    model = RidgeCV(alphas=np.array(RIDGE_PENALTIES) * len(train)).fit(scaler.transform(train), targets)
    predicted = model.predict(scaler.transform(test)).reshape(expected.shape)
    return float(r2_score(expected, predicted, multioutput="variance_weighted"))


def reduce_width(features: ArrayLike, width: int, seed: int = 0) -> NDArray[np.floating]:
    """float[N, D] on `width` random directions where D > width, else as it is; keeps float32 as float32.

    A sparse random projection (Li, Hastie & Church 2006), which keeps distances up to about 1 / sqrt(width). The same
    D, width and seed give the same directions, so batches, and training and test rows, may come one after another.
    """
    matrix = np.asarray(features)
    if matrix.ndim != 2 or width < 1:
        raise UserError(
            f"`features` must have the shape [inputs, units] and `width` be at least 1, got {list(matrix.shape)} and "
            f"{width}; flatten all axes after the first into one."
        )
    if matrix.shape[1] <= width:
        return matrix
    projection = SparseRandomProjection(dense_output=True, random_state=seed).set_params(n_components=width)
    return projection.fit(matrix).transform(matrix)


class _Classifier:
    """Logistic regression on standardised features; each fit starts from the one before."""

    def __init__(self, features: Floats, indices: NDArray[np.integer]):
        self._scaler = StandardScaler().fit(features)
        self._features, self._indices = self._scaler.transform(features), indices
        self._model = LogisticRegression(max_iter=1000, warm_start=True)

    def fit(self, inverse_penalty: float) -> None:
        self._model.set_params(C=inverse_penalty)
        with warnings.catch_warnings():  # a probe that stopped early is still a probe: it is measured on held-out rows
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(self._features, self._indices)

    def scores(self, features: Floats) -> Floats:
        """Logits float[N, classes]."""
        scores = self._model.decision_function(self._scaler.transform(features))
        return scores if scores.ndim == 2 else np.stack([np.zeros_like(scores), scores], axis=1)

    def bits(self, features: Floats, indices: NDArray[np.integer]) -> float:
        logarithms = log_softmax(self.scores(features), axis=1)
        return float(-logarithms[np.arange(len(indices)), indices].mean() / np.log(2))


def _split(indices: NDArray[np.integer], seed: int) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Rows to fit and rows to choose by; each class has a row to fit."""
    order = np.random.default_rng(seed).permutation(len(indices))
    first = np.unique(indices[order], return_index=True)[1]
    rest = np.delete(order, first)
    validation = rest[: max(1, len(indices) // VALIDATION_SHARE)]
    return np.setdiff1d(order, validation), validation


def _pair(name: str, train: ArrayLike, test: ArrayLike) -> tuple[Floats, Floats]:
    pair = as_matrix(f"{name}_train", train), as_matrix(f"{name}_test", test)
    if pair[0].shape[1] != pair[1].shape[1]:
        raise UserError(
            f"`{name}_train` and `{name}_test` must have the same columns, got {pair[0].shape[1]} and "
            f"{pair[1].shape[1]}; take both from the same layer."
        )
    return pair
