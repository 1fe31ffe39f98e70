"""The linear probe: multinomial logistic regression on frozen features, all regularisation strengths in one solve.

`logistic_regression` is the solver and `linear_probe` the protocol.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssl_ebm.evaluation.features.bank import Bank
from ssl_ebm.evaluation.probes.classification import Classifiers, classification_scores

STRENGTHS = tuple(np.logspace(-5, 2, 8).tolist())  # C, the inverse of regularisation
HISTORY = 10  # moves that L-BFGS remembers
CHUNK_CELLS = 2**26  # logits held at a time
DESCRIPTION = "standardised, multinomial logistic regression, L2 by validation, refit on train + validation"


class Fit(NamedTuple):
    """Classifiers, one a strength, whose logits are x Wᵀ + b, and how their fits ended."""

    weights: Float[Tensor, "strengths classes d"]
    intercepts: Float[Tensor, "strengths classes"]
    converged: Bool[Tensor, " strengths"]
    iterations: Int64[Tensor, " strengths"]


def logistic_regression(
    x: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    strengths: Sequence[float],
    *,
    classes: int,
    tolerance: float = 1e-4,
    max_iterations: int = 500,
    start: Fit | None = None,
) -> Fit:
    """Classifiers that minimise ½‖W‖² + C Σ_i -log softmax(W x_i + b)_{y_i}, for every C at once; b is not penalised.

    scikit-learn's `LogisticRegression(C)` for three classes and more (its binary model has one weight vector where this
    has two, so that its C is twice this one), and its stopping rule: max |gradient| ≤ tolerance of the objective over
    C n. A strength that has converged leaves the batch.

    Every strength's L-BFGS works in coordinates in which its Hessian at W = 0, which is XᵀX / (n K) + I / (C n) for
    centred x and up to the coupling of classes, is the identity. One eigendecomposition of XᵀX serves all strengths,
    and correlated features cost few iterations more. Böhning's bound (1992) has ½ where this has 1/K: it never
    overshoots, but is loose.

    Args:
        x: Features, standardised, float32 or float64.
        labels: In 0 .. classes - 1, each at least once: the intercept of an absent class has no minimum.
        strengths: C > 0, the inverse of regularisation.
        classes: Number of classes.
        tolerance: Of the stopping rule.
        max_iterations: Evaluations of the gradient; a strength that needs more is returned as it is, unconverged.
        start: Where to start, one classifier a strength; None: zero.

    Raises:
        ValueError: If a strength or a label is out of its range.
    """
    if not len(strengths) or not all(0 < strength < float("inf") for strength in strengths):
        raise ValueError(f"strengths must be finite and > 0, got {tuple(strengths)}")
    images = torch.bincount(labels, minlength=classes)
    if classes < 2 or len(images) > classes or not images.all():
        present = f"{int((images > 0).sum())} different labels up to {len(images) - 1} for {classes} classes"
        raise ValueError(f"labels must hold each of at least two classes, got {present}")
    n, d = x.shape
    penalty = 1 / (n * torch.tensor(strengths, dtype=torch.float64, device=x.device))
    variance, axes = torch.linalg.eigh((x.T @ x / n).double())
    curvature = variance.clamp(min=0) / classes + penalty[:, None]
    scale = torch.cat((curvature.rsqrt(), torch.full_like(penalty, classes**0.5)[:, None]), 1)[:, None].to(x)
    axes = torch.block_diag(axes, axes.new_ones(1, 1)).to(x)
    penalty = penalty.to(x)[:, None, None]

    def objective(u: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, gradient = _loss(x, labels, (u * scale[member]) @ axes.T, penalty[member])
        return value, gradient @ axes * scale[member], gradient.abs().amax((1, 2)) <= tolerance

    u = x.new_zeros(len(strengths), classes, d + 1)
    if start is not None:
        u = torch.cat((start.weights, start.intercepts[..., None]), 2).to(x) @ axes / scale
    u, converged, iterations = _lbfgs(objective, u, max_iterations)
    solution = (u * scale) @ axes.T
    return Fit(solution[..., :-1], solution[..., -1], converged, iterations)


def _loss(x: Tensor, labels: Tensor, theta: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy + ½ penalty ‖W‖² and its gradient for theta = (W, b) [strengths, classes, d + 1].

    One matrix product covers all strengths and classes. Logits lie with images along the last axis, where the softmax
    over classes is vectorised, and by chunks that stay in the cache between the two products.
    """
    strengths, classes, _ = theta.shape
    weight, bias = theta[..., :-1].flatten(0, 1), theta[..., -1:].flatten(0, 1)
    rows = max(256, min(4096, CHUNK_CELLS // len(weight)))
    value = torch.zeros(strengths, dtype=torch.float64, device=x.device)
    gradient, gradient_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    for part, label in zip(x.split(rows), labels.split(rows), strict=True):
        image = torch.arange(len(part), device=x.device)
        residual = torch.addmm(bias, weight, part.T).view(strengths, classes, -1).log_softmax(1)
        value -= residual[:, label, image].sum(1, dtype=torch.float64)
        residual.exp_()[:, label, image] -= 1
        gradient.addmm_(residual.flatten(0, 1), part)
        gradient_bias += residual.flatten(0, 1).sum(1, keepdim=True)
    by_theta = torch.cat((gradient, gradient_bias), 1).view_as(theta) / len(x)
    by_theta[..., :-1] += penalty * theta[..., :-1]
    squares = theta[..., :-1].double().square().sum((1, 2))
    return value / len(x) + penalty[:, 0, 0] * squares / 2, by_theta


def _lbfgs(
    objective: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]], u: Tensor, max_iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """L-BFGS for several convex problems side by side, one evaluation of all that are left an iteration.

    A problem whose trial point does not decrease enough (Armijo) keeps its place and shortens its step; the others move
    on. `objective(u, member)` gives values, gradients and whether each of these members has converged.

    Returns:
        The minimisers, whether each problem converged, and after how many evaluations.
    """
    solution, member = u.clone(), torch.arange(len(u), device=u.device)
    converged, iterations = torch.zeros_like(member, dtype=torch.bool), torch.zeros_like(member)
    value, gradient, done = objective(u, member)
    step = torch.ones_like(value)
    basis = u.new_zeros(len(u), 2 * HISTORY + 1, u[0].numel())  # moves, changes of gradient by them, gradient
    for iteration in range(1, max_iterations + 1):
        solution[member], converged[member], iterations[member] = u, done, iteration
        if done.any():
            state = (member, u, value, gradient, step, basis)
            member, u, value, gradient, step, basis = (part[~done] for part in state)
        if not len(member):
            break
        basis[:, -1] = gradient.flatten(1)
        direction, slope = _direction(basis, [(iteration + i) % HISTORY for i in range(HISTORY)])
        trial = u + step.to(u)[:, None, None] * direction.view_as(u)
        trial_value, trial_gradient, done = objective(trial, member)
        rounding = 4 * torch.finfo(u.dtype).eps * value.abs()
        accepted = trial_value <= value + 1e-4 * step * slope + rounding
        done = accepted & done
        step = torch.where(accepted, 1, step / 2)
        value, kept = torch.where(accepted, trial_value, value), ~accepted
        trial[kept], trial_gradient[kept] = u[kept], gradient[kept]
        oldest = iteration % HISTORY
        basis[:, oldest] = (trial - u).flatten(1)
        basis[:, HISTORY + oldest] = (trial_gradient - gradient).flatten(1)
        u, gradient = trial, trial_gradient
    return solution, converged, iterations


def _direction(
    basis: Float[Tensor, "s vectors p"], order: list[int]
) -> tuple[Float[Tensor, "s p"], Float[Tensor, " s"]]:
    """L-BFGS's two loops (Nocedal & Wright 2006, algorithm 7.4) for every problem, and the slope along the result.

    They run on coefficients of the basis, whose inner products are known (Chen et al. 2014), so that an iteration is
    two batched products. A move without curvature, as that of a rejected trial is, is passed over. `order` numbers the
    moves from the oldest to the newest.
    """
    m = len(order)
    inner = (basis @ basis.mT).double()
    curvature, size = inner[:, :m, m:-1].diagonal(0, 1, 2), inner[:, m:-1, m:-1].diagonal(0, 1, 2)
    curved = curvature > torch.finfo(basis.dtype).eps * size
    inverse = torch.where(curved, 1 / curvature, 0)
    coefficient = torch.zeros_like(inner[:, 0])
    coefficient[:, -1] = -1
    for i in reversed(order):
        coefficient[:, m + i] -= inverse[:, i] * (coefficient * inner[:, i]).sum(1)
    along, scale = coefficient[:, m:-1].clone(), torch.ones_like(inverse[:, 0])
    for i in order:
        scale = torch.where(curved[:, i], curvature[:, i] / size[:, i], scale)
    coefficient *= scale[:, None]
    for i in order:
        coefficient[:, i] -= along[:, i] + inverse[:, i] * (coefficient * inner[:, m + i]).sum(1)
    return (coefficient.to(basis)[:, None] @ basis)[:, 0], (coefficient * inner[:, -1]).sum(1)


def linear_probe(
    bank: Bank,
    *,
    strengths: Sequence[float] = STRENGTHS,
    tolerance: float = 1e-4,
    max_iterations: int = 500,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """The `lbfgs` protocol: strength chosen on validation, refit on train and validation, test read once.

    Features are standardised by the split that is fitted. Of strengths equal on validation the most regularised is
    taken; `at_edge` says that it is the grid's first or last, so that a wider grid might do better. `test` holds
    `classification_scores`.

    Raises:
        ValueError: If a strength is out of its range or the train split holds fewer than two classes.
    """
    strengths = sorted(strengths)
    fit = partial(logistic_regression, tolerance=tolerance, max_iterations=max_iterations)
    sweep = Classifiers(bank.train, partial(fit, strengths=strengths), device=device)
    curve = sweep.accuracies(bank.validation, bank.classes)
    best, full_train = int(np.argmax(curve)), bank.full_train()
    same_classes = np.array_equal(np.unique(full_train.labels), sweep.present)
    start = Fit(*(field[best : best + 1] for field in sweep.fit)) if same_classes else None
    final = Classifiers(full_train, partial(fit, strengths=strengths[best : best + 1], start=start), device=device)
    return {
        "protocol": "lbfgs",
        "strength": strengths[best],
        "at_edge": best in (0, len(strengths) - 1),
        "strengths": strengths,
        "validation": curve,
        "converged": sweep.fit.converged.tolist(),
        "iterations": sweep.fit.iterations.tolist(),
        "refit_converged": bool(final.fit.converged.item()),
        "refit_iterations": int(final.fit.iterations.item()),
        "unseen_classes": final.unseen(bank.classes),
        "test": classification_scores(final.scores(bank.test, bank.classes), bank.test.labels),
    }
