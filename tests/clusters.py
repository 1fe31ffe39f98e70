"""Banks of features in overlapping clusters, one a class, for the tests of probes."""

import numpy as np

from ssl_ebm.evaluation.features.bank import Bank, Split


def clusters(n, *, classes=4, d=12, noise=2.0, seed=0):
    """Features of n images whose classes follow in turn."""
    centres = np.random.default_rng(99).standard_normal((classes, d))
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n) % classes)
    return Split((centres[labels] + noise * random.standard_normal((n, d))).astype(np.float32), labels)


def bank(*, classes=4, sizes=(200, 80, 60), **change):
    """A bank; `change` replaces splits."""
    parts = {
        name: clusters(n, seed=seed, classes=classes)
        for seed, (name, n) in enumerate(zip(("train", "validation", "test"), sizes, strict=True))
    }
    return Bank(**{**parts, **change}, classes=classes)


def reordered(split, seed=0):
    """The same images in another order."""
    order = np.random.default_rng(seed).permutation(len(split))
    return Split(split.features[order], split.labels[order])


def blind(original):
    """The same bank with other test labels."""
    test = Split(original.test.features, original.classes - 1 - original.test.labels)
    return Bank(train=original.train, validation=original.validation, test=test, classes=original.classes)


def without(split, label):
    """Only the images of other classes."""
    kept = split.labels != label
    return Split(split.features[kept], split.labels[kept])
