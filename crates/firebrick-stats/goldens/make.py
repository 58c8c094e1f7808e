"""Computes the golden numbers with SciPy, scikit-learn and statsmodels and writes them to stats.json beside this file.

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install -r requirements.txt
    /tmp/goldens/bin/python make.py

Inputs are drawn from a fixed seed and rounded, so that the JSON holds them exactly.
"""

import json
import math
import platform
from fractions import Fraction
from pathlib import Path

import numpy as np
import scipy
import sklearn
import statsmodels
import statsmodels.api as sm
from scipy import integrate, stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

RNG = np.random.default_rng(20211201)
ELO_PER_LOGIT = 400 / math.log(10)


def wilson():
    cases = [(0, 10, 0.95), (10, 10, 0.95), (7, 10, 0.9), (640, 1000, 0.99), (1, 100000, 0.95), (5, 9, 0.5)]
    rows = []
    for successes, trials, confidence in cases:
        low, high = proportion_confint(successes, trials, alpha=1 - confidence, method="wilson")
        rows.append({"successes": successes, "trials": trials, "confidence": confidence, "low": low, "high": high})
    return rows


def bootstrap():
    a = np.round(RNG.exponential(1.0, 50), 3)
    b = np.round(0.7 * a + RNG.normal(0, 0.6, 50), 3)
    options = dict(n_resamples=20000, confidence_level=0.9, method="percentile", rng=np.random.default_rng(1))
    mean = stats.bootstrap((a,), np.mean, **options).confidence_interval
    difference = stats.bootstrap((a, b), lambda a, b: np.mean(a - b), paired=True, vectorized=False, **options)
    difference = difference.confidence_interval
    return {
        "a": a.tolist(),
        "b": b.tolist(),
        "mean": a.mean(),
        "low": mean.low,
        "high": mean.high,
        "difference": (a - b).mean(),
        "difference_low": difference.low,
        "difference_high": difference.high,
    }


def elo():
    """Bradley-Terry as a logistic regression without intercept: +1 for the one, -1 for the other player."""
    wins = np.array([[0, 30, 11, 8, 0], [41, 0, 25, 14, 3], [52, 33, 0, 29, 9], [47, 61, 38, 0, 12], [0, 5, 21, 17, 0]])
    rows, outcomes = [], []
    for a in range(5):
        for b in range(a + 1, 5):
            row = np.zeros(5)
            row[a], row[b] = 1, -1
            rows.append(row[1:])
            outcomes.append((wins[a, b], wins[b, a]))
    met = [sum(outcome) > 0 for outcome in outcomes]
    model = sm.GLM(np.array(outcomes)[met], np.array(rows)[met], family=sm.families.Binomial())
    fit = model.fit(tol=1e-14, maxiter=200)
    contrast = fit.t_test([[-1, 0, 1, 0]])
    low, high = contrast.conf_int(alpha=0.05)[0]
    return {
        "wins": wins.tolist(),
        "elo": [0.0, *(fit.params * ELO_PER_LOGIT)],
        "standard_errors": [0.0, *(fit.bse * ELO_PER_LOGIT)],
        "difference_3_1": contrast.effect[0] * ELO_PER_LOGIT,
        "difference_3_1_low": low * ELO_PER_LOGIT,
        "difference_3_1_high": high * ELO_PER_LOGIT,
    }


def calibration():
    """Differences of an over-confident model; each comparison is shown both ways round to the libraries."""
    true = RNG.normal(0, 1.5, 300)
    chosen = RNG.random(300) < 1 / (1 + np.exp(-true))
    differences = np.round(np.where(chosen, true, -true) * 1.8, 3)
    both = np.concatenate([differences, -differences])
    outcomes = np.concatenate([np.ones(300), np.zeros(300)])
    predictions = 1 / (1 + np.exp(-both))
    # The upper half of twice the bins over 0 to 1 is the favourite's side.
    observed, predicted = calibration_curve(outcomes, predictions, n_bins=10)
    upper = predicted > 0.5
    bins = np.digitize(predictions, np.linspace(0, 1, 21)[1:-1])
    gaps = [abs(outcomes[bins == b].mean() - predictions[bins == b].mean()) * (bins == b).mean() for b in set(bins)]
    slope = sm.Logit(outcomes, both).fit(disp=0, tol=1e-14, maxiter=200).params[0]
    return {
        "differences": differences.tolist(),
        "brier": brier_score_loss(outcomes, predictions),
        "curve_5_predicted": predicted[upper].tolist(),
        "curve_5_observed": observed[upper].tolist(),
        "ece_10": sum(gaps),
        "slope": slope,
    }


def regression():
    x = np.round(RNG.uniform(0, 6, 40), 3)
    y = np.round(0.4 * x - 1 + RNG.normal(0, 0.5, 40), 3)
    line = stats.linregress(x, y)
    return {
        "x": x.tolist(),
        "y": y.tolist(),
        "slope": line.slope,
        "intercept": line.intercept,
        "r_squared": line.rvalue**2,
        "pearson": stats.pearsonr(x, y).statistic,
    }


def auroc():
    positives = np.round(RNG.normal(0.6, 1, 60), 1)
    negatives = np.round(RNG.normal(0, 1, 45), 1)
    labels = np.concatenate([np.ones(60), np.zeros(45)])
    area = roc_auc_score(labels, np.concatenate([positives, negatives]))
    return {"positives": positives.tolist(), "negatives": negatives.tolist(), "auroc": area}


def estimators():
    """Exact fractions for the binomial sums; the KL of the best of n by numerical integration over the rank u."""
    correct = [bool(c) for c in RNG.random(100) < np.linspace(0.7, 0.2, 100)]
    ks = [1, 2, 8, 32, 96, 100]

    def acc(k):
        ways = sum(math.comb(100 - i, k - 1) for i, c in enumerate(correct, start=1) if c)
        return float(Fraction(ways, math.comb(100, k)))

    def kl(n):
        density = lambda u: n * u ** (n - 1)
        return integrate.quad(lambda u: density(u) * math.log(density(u)) if u > 0 else 0, 0, 1, epsabs=1e-12)[0]

    return {
        "correct_best_first": correct,
        "acc_at_k": {k: acc(k) for k in ks},
        "pass_at_k": {k: float(1 - Fraction(math.comb(97, k), math.comb(100, k))) for k in ks},
        "best_of_n_kl": {n: kl(n) for n in [2, 4, 16, 64]},
    }


def main():
    goldens = {
        "made_with": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "scikit-learn": sklearn.__version__,
            "statsmodels": statsmodels.__version__,
        }
    }
    for case in [wilson, bootstrap, elo, calibration, regression, auroc, estimators]:
        goldens[case.__name__] = case()
    text = json.dumps(goldens, indent=1, default=float)
    (Path(__file__).parent / "stats.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
