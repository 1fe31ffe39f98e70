import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ssl_ebm.evaluation.features.bank import Bank, Split
from ssl_ebm.evaluation.probes import linear
from ssl_ebm.evaluation.probes.linear import linear_probe, logistic_regression

STRENGTHS = [1e-4, 1e-2, 1.0, 30.0]


def problem(n=300, d=12, classes=4, *, seed=0, noise=2.0, condition=1.0, dtype=torch.float64):
    """Overlapping clusters; `condition` spreads the features' scales before they are mixed."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, d))
    labels = random.permutation(np.arange(n) % classes)
    x = centres[labels] + noise * random.standard_normal((n, d))
    x = x * np.logspace(0, -np.log10(condition), d) @ np.random.default_rng(98).standard_normal((d, d))
    x = (x - x.mean(0)) / x.std(0)
    return torch.from_numpy(x).to(dtype), torch.from_numpy(labels)


def split(n, *, seed=0, classes=4, **options):
    x, y = problem(n, seed=seed, classes=classes, dtype=torch.float32, **options)
    return Split(x.numpy(), y.numpy())


def bank(**change):
    parts = {"train": split(200), "validation": split(80, seed=1), "test": split(60, seed=2)}
    return Bank(**{**parts, "classes": 4, **change})


def objective(x, y, strength, weight, bias):
    logits = x @ weight.T + bias
    losses = [-(logits[i] - logits[i].max()).log_softmax(0)[y[i]] for i in range(len(x))]
    return weight.square().sum() / 2 + strength * torch.stack(losses).sum()


def test_solutions_are_stationary_points_of_the_objective():
    x, y = problem()
    fit = logistic_regression(x, y, STRENGTHS, classes=4, tolerance=1e-10)
    assert fit.converged.all()
    for strength, weight, bias in zip(STRENGTHS, fit.weights, fit.intercepts, strict=True):
        weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        gradients = torch.autograd.grad(objective(x, y, strength, weight, bias), (weight, bias))
        assert max(g.abs().max() for g in gradients) < 2e-10 * strength * len(x)


@pytest.mark.parametrize("condition", [1.0, 1e4])
def test_equals_scikit_learn(condition):
    x, y = problem(condition=condition)
    fit = logistic_regression(x, y, STRENGTHS, classes=4, tolerance=1e-9)
    for strength, weight, bias in zip(STRENGTHS, fit.weights, fit.intercepts, strict=True):
        peer = LogisticRegression(C=strength, tol=1e-9, max_iter=100_000).fit(x.numpy(), y.numpy())
        assert weight.numpy() == pytest.approx(peer.coef_, abs=2e-4)
        assert bias.numpy() == pytest.approx(peer.intercept_, abs=2e-4)
        logits = x @ weight.T + bias
        assert logits.softmax(1).numpy() == pytest.approx(peer.predict_proba(x.numpy()), abs=1e-4)


def test_two_classes_equal_scikit_learn_at_twice_the_strength():
    x, y = problem(classes=2)
    fit = logistic_regression(x, y, [0.05], classes=2, tolerance=1e-9)
    peer = LogisticRegression(C=0.1, tol=1e-9, max_iter=10_000).fit(x.numpy(), y.numpy())
    probability = (x @ fit.weights[0].T + fit.intercepts[0]).softmax(1)
    assert probability.numpy() == pytest.approx(peer.predict_proba(x.numpy()), abs=1e-6)


def test_a_vanishing_strength_leaves_the_class_frequencies():
    x, _ = problem()
    y = torch.tensor([0] * 150 + [1] * 90 + [2] * 60)
    fit = logistic_regression(x, y, [1e-12], classes=3, tolerance=1e-10)
    assert fit.weights.abs().max() < 1e-6
    assert fit.intercepts[0].softmax(0).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=1e-6)


def test_strengths_together_equal_strengths_alone():
    x, y = problem()
    together = logistic_regression(x, y, STRENGTHS, classes=4, tolerance=1e-10)
    for i, strength in enumerate(STRENGTHS):
        alone = logistic_regression(x, y, [strength], classes=4, tolerance=1e-10)
        assert together.weights[i].numpy() == pytest.approx(alone.weights[0].numpy(), abs=1e-6)


def test_equivariant_to_the_order_of_classes_and_images():
    x, y = problem()
    order, names = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 3, 1])
    plain = logistic_regression(x, y, STRENGTHS, classes=4, tolerance=1e-10)
    moved = logistic_regression(x[order], names[y[order]], STRENGTHS, classes=4, tolerance=1e-10)
    assert moved.weights[:, names].numpy() == pytest.approx(plain.weights.numpy(), abs=1e-6)


def test_chunks_change_nothing(monkeypatch):
    x, y = problem(n=600)
    whole = logistic_regression(x, y, STRENGTHS, classes=4, tolerance=1e-10)
    monkeypatch.setattr(linear, "CHUNK_CELLS", 1)
    chunked = logistic_regression(x, y, STRENGTHS, classes=4, tolerance=1e-10)
    assert chunked.weights.numpy() == pytest.approx(whole.weights.numpy(), abs=1e-8)


def test_correlated_features_cost_few_iterations():
    x, y = problem(n=500, d=40, condition=1e5, dtype=torch.float32)
    spectrum = torch.linalg.eigvalsh(x.double().T @ x.double())
    assert spectrum[-1] / spectrum[0] > 1e8
    fit = logistic_regression(x, y, STRENGTHS, classes=4)
    assert fit.converged.all() and fit.iterations.max() < 100
    peer = LogisticRegression(C=30.0, max_iter=10_000).fit(x.double().numpy(), y.numpy())
    assert fit.iterations[-1] < peer.n_iter_[0]


def test_separable_classes_and_overshooting_steps_converge():
    random = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 3
    x = torch.eye(3)[y] * 10 + torch.randn(200, 3, generator=random)
    fit = logistic_regression(x, y, [1e-3, 1.0, 1e3, 1e6], classes=3)
    assert fit.converged.all()
    assert ((x @ fit.weights[2].T + fit.intercepts[2]).argmax(1) == y).all()


def test_a_step_that_overshoots_is_taken_back_and_shortened():
    """Two valleys log cosh(s u): the unit step flies across the steep one, and fits the other."""
    evaluated = []

    def valleys(u, member):
        evaluated.append(u.flatten().tolist())
        steep = torch.tensor([50.0, 1.0])[member].view(-1, 1, 1)
        gradient = steep * torch.tanh(steep * u)
        value = (steep * u).abs() + torch.log1p(torch.exp(-2 * (steep * u).abs()))
        return value.flatten().double(), gradient, gradient.abs().flatten() < 1e-4

    start = torch.tensor([0.5, 0.5]).view(2, 1, 1)
    solution, converged, _ = linear._lbfgs(valleys, start, 2)
    assert evaluated[1][0] < -10 and not converged.any()
    assert solution[0] == 0.5 and 0 < solution[1] < 0.5
    solution, converged, iterations = linear._lbfgs(valleys, start, 100)
    assert converged.all() and solution.abs().max() < 1e-4
    assert iterations[0] > iterations[1]


def test_direction_equals_the_dense_bfgs_update():
    random = torch.Generator().manual_seed(0)
    m, p, order = 4, 9, [2, 0, 3, 1]
    root = torch.randn(2, p, p, generator=random, dtype=torch.float64)
    moves = torch.randn(2, m, p, generator=random, dtype=torch.float64)
    moves[1, 3] = 0  # a rejected step leaves no pair
    changes = moves @ (root @ root.mT + torch.eye(p))
    gradient = torch.randn(2, 1, p, generator=random, dtype=torch.float64)
    direction, slope = linear._direction(torch.cat((moves, changes, gradient), 1), order)
    for problem_moves, problem_changes, g, d, along in zip(
        moves, changes, gradient[:, 0], direction, slope, strict=True
    ):
        pairs = [(problem_moves[i], problem_changes[i]) for i in order if problem_moves[i].any()]
        move, change = pairs[-1]
        inverse = (move @ change) / (change @ change) * torch.eye(p, dtype=torch.float64)
        for move, change in pairs:
            left = torch.eye(p) - torch.outer(move, change) / (move @ change)
            inverse = left @ inverse @ left.T + torch.outer(move, move) / (move @ change)
        assert d.numpy() == pytest.approx((-inverse @ g).numpy(), rel=1e-9)
        assert along.item() == pytest.approx((g @ d).item(), rel=1e-9)


def test_the_first_step_is_newtons():
    """Where W stays small the objective is quadratic, with the Hessian that the coordinates are made for."""
    x, y = problem(condition=1e4)
    fit = logistic_regression(x, y, [1e-7, 1e-6, 1e-5], classes=4, tolerance=1e-4)
    assert fit.iterations.tolist() == [2, 2, 2]
    y[:20] = 0  # unequal classes move the intercepts
    assert logistic_regression(x, y, [1e-6], classes=4, tolerance=1e-3).iterations.max() <= 3


def test_a_start_at_the_solution_is_taken():
    x, y = problem()
    fit = logistic_regression(x, y, STRENGTHS, classes=4, tolerance=1e-6)
    again = logistic_regression(x, y, STRENGTHS, classes=4, tolerance=2e-6, start=fit)
    assert again.iterations.tolist() == [1] * 4
    assert again.weights.numpy() == pytest.approx(fit.weights.numpy(), abs=1e-9)


def test_an_unfinished_fit_says_so():
    x, y = problem()
    fit = logistic_regression(x, y, [1e-6, 30.0], classes=4, max_iterations=8)
    assert fit.converged.tolist() == [True, False] and fit.iterations[1] == 8
    assert fit.weights.isfinite().all()


def test_more_strengths_or_features_than_images():
    x, y = problem(n=12, d=30)
    fit = logistic_regression(x, y, np.logspace(-4, 2, 40).tolist(), classes=4)
    assert fit.converged.all()
    norms = fit.weights.flatten(1).norm(dim=1)
    assert (norms.diff() > 0).all()


def test_constant_columns_get_no_weight():
    x, y = problem()
    x = torch.cat((x, torch.zeros(len(x), 1)), 1)
    assert logistic_regression(x, y, STRENGTHS, classes=4).weights[..., -1].abs().max() < 1e-12


@pytest.mark.parametrize("strengths", [[], [0.0], [1.0, -1.0], [float("inf")], [float("nan")]])
def test_impossible_strengths_are_refused(strengths):
    with pytest.raises(ValueError, match="strengths must be finite and > 0"):
        logistic_regression(*problem(), strengths, classes=4)


@pytest.mark.parametrize("classes", [1, 3, 5])
def test_labels_must_hold_every_class(classes):
    with pytest.raises(ValueError, match=f"labels must hold each .* for {classes}"):
        logistic_regression(*problem(), [1.0], classes=classes)


def test_probe_equals_the_protocol_spelled_out_with_scikit_learn():
    b = bank()
    grid = np.logspace(-4, 1, 8).tolist()
    result = linear_probe(b, strengths=grid, tolerance=1e-6)

    def fit(part, strength):
        mean, std = part.features.mean(0), part.features.std(0)
        model = LogisticRegression(C=strength, tol=1e-6, max_iter=10_000).fit((part.features - mean) / std, part.labels)
        return lambda other: model.predict((other.features - mean) / std)

    curve = [float((fit(b.train, c)(b.validation) == b.validation.labels).mean()) for c in grid]
    assert result["validation"] == pytest.approx(curve)
    assert result["strength"] == grid[int(np.argmax(curve))]
    predicted = fit(b.full_train(), result["strength"])(b.test)
    assert result["test"]["predictions"] == predicted.tolist()
    assert result["converged"] == [True] * 8 and result["refit_converged"]
    assert json.loads(json.dumps(result)) == result


def test_the_refit_starts_from_the_sweep():
    """To a loose tolerance, which few more images do not move the solution out of."""
    result = linear_probe(bank(train=split(2000)), strengths=[0.1, 1.0], tolerance=1e-3)
    assert result["refit_iterations"] < min(result["iterations"])


def test_probe_is_invariant_to_shift_and_scale_of_each_feature():
    b = bank()
    scale, shift = np.float32(np.logspace(-3, 3, 12)), np.float32(np.linspace(-5, 5, 12))

    def change(part):
        return Split(part.features * scale + shift, part.labels)

    changed = bank(train=change(b.train), validation=change(b.validation), test=change(b.test))
    plain, moved = linear_probe(b), linear_probe(changed)
    assert moved["strength"] == plain["strength"]
    assert np.mean(np.array(moved["test"]["predictions"]) == plain["test"]["predictions"]) > 0.98


def test_probe_chooses_without_the_test_labels():
    b = bank()
    blind = bank(test=Split(b.test.features, 3 - b.test.labels))
    plain, other = linear_probe(b), linear_probe(blind)
    assert plain["test"].pop("predictions") == other["test"].pop("predictions")
    plain.pop("test"), other.pop("test")
    assert plain == other


def test_probe_sorts_strengths_and_says_when_the_choice_is_at_the_edge():
    noisy = bank(train=split(60, noise=4), validation=split(400, noise=4, seed=1))  # small enough to overfit
    result = linear_probe(noisy, strengths=[10.0, 1e-6, 1e-2])
    assert result["strengths"] == [1e-6, 1e-2, 10.0]
    assert result["strength"] == 1e-2 and not result["at_edge"]
    assert linear_probe(noisy, strengths=[1e-2, 10.0])["at_edge"]


def test_features_that_are_constant_in_training_count_for_nothing():
    b = bank()

    def add(part, *columns):
        return Split(
            np.float32(np.column_stack((part.features, *(np.full(len(part), c) for c in columns)))), part.labels
        )

    changed = bank(train=add(b.train, 0, 0.1), validation=add(b.validation, 0, 0.1), test=add(b.test, 1e6, -1e6))
    assert linear_probe(changed)["test"]["predictions"] == linear_probe(b)["test"]["predictions"]


def test_a_collapsed_encoder_is_chance_and_no_error():
    def collapse(part):
        return Split(np.full_like(part.features, 0.1), part.labels)

    b = bank()
    result = linear_probe(bank(train=collapse(b.train), validation=collapse(b.validation), test=collapse(b.test)))
    assert result["test"]["top1"] == pytest.approx(1 / 4, abs=0.1) and len(set(result["test"]["predictions"])) == 1


def test_classes_without_training_images_are_never_predicted():
    b = bank()
    train = Split(b.train.features[b.train.labels < 2], b.train.labels[b.train.labels < 2])
    keep = b.validation.labels != 3
    result = linear_probe(bank(train=train, validation=Split(b.validation.features[keep], b.validation.labels[keep])))
    assert result["unseen_classes"] == [3]  # class 2 is learnt in the refit
    assert set(result["test"]["predictions"]) == {0, 1, 2}
    assert result["test"]["per_class"][3] == 0
    parts = {name: split(n, seed=n, classes=8) for name, n in (("train", 300), ("validation", 200), ("test", 100))}
    for name in ("train", "validation"):
        seen = parts[name].labels < 3
        parts[name] = Split(parts[name].features[seen], parts[name].labels[seen])
    assert linear_probe(Bank(**parts, classes=8))["test"]["top5"] == (parts["test"].labels < 3).mean()
    alone = Split(b.train.features, np.zeros_like(b.train.labels))
    with pytest.raises(ValueError, match="at least two classes"):
        linear_probe(bank(train=alone))
