"""Student's t with any number of degrees of freedom."""

import numpy as np
import torch
from jaxtyping import Float

NODES, WEIGHTS = np.polynomial.legendre.leggauss(128)
MOST, LARGEST = 1e8, 1e30  # degrees of freedom, beyond which t is normal to 8 digits; and t
STEPS = 60


def t_tail(t: Float[np.ndarray, "*n"], df: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """P(|T| > t) for t ≥ 0: the two-sided p-value.

    With t = √ν / tan φ it is 2 c ∫₀^φ sin^(ν-1) u du, c = Γ((ν+1)/2) / (√π Γ(ν/2)), by Gauss-Legendre quadrature in √u,
    which is smooth at 0 for fractional ν too. A p-value far below the rounding of 1 keeps its digits.
    """
    t, df = np.broadcast_arrays(np.minimum(t, LARGEST), np.minimum(df, MOST))
    end = np.sqrt(np.arctan2(np.sqrt(df), t))
    # many degrees of freedom: 40 standard deviations further out nothing is left
    start = np.where(df > 100, np.sqrt(np.arctan2(np.sqrt(df), t + 40.0)), 0.0)
    root = start[..., None] + (end - start)[..., None] * (NODES + 1) / 2
    logs = (df[..., None] - 1) * np.log(np.sin(root**2)) + np.log(2 * root) + _log_constant(df)[..., None]
    return np.minimum(1.0, (np.exp(logs) * WEIGHTS).sum(-1) * (end - start))


def t_quantile(tail: float, df: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The t with P(|T| > t) = tail: 4.303 for .05 and 2 degrees of freedom."""
    df = np.minimum(np.asarray(df, dtype=np.float64), MOST)
    t = np.ones_like(df)
    for _ in range(STEPS):  # Newton's, of log tail by log t: concave, hence from above the root it never crosses it
        p = t_tail(t, df)
        density = np.exp(_log_constant(df) - (df + 1) / 2 * np.log1p(t**2 / df)) / np.sqrt(df)
        step = np.minimum((np.log(p) - np.log(tail)) * p / (2 * density * t), 0.5)
        t = t * np.exp(step)
        if (np.abs(step) < 1e-12).all():
            break
    return t


def _log_constant(df: np.ndarray) -> np.ndarray:
    half = torch.from_numpy(df / 2)
    return (torch.lgamma(half + 0.5) - torch.lgamma(half)).numpy() - np.log(np.pi) / 2
