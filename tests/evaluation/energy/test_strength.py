import json

import numpy as np
import pytest
import torch

from ssl_ebm.energies.pairwise import Cosine, Energy, SquaredEuclidean
from ssl_ebm.evaluation.energy.strength import LEVELS, changes, strength

GREY = ("crop", "translation", "rotation", "brightness", "contrast", "blur", "noise", "erasing", "solarising")


def pictures(n=12, channels=1, size=16, seed=0):
    """Soft blobs: what crops and blurs change by degrees."""
    coarse = torch.rand(n, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")


def flat(x):
    return x.flatten(1)


@pytest.mark.parametrize(("channels", "more"), [(1, ()), (3, ("saturation", "hue"))])
def test_augmentations_begin_at_nothing_and_stay_images(channels, more):
    images = pictures(channels=channels)
    found = changes(*images.shape, device=images.device)
    assert tuple(found) == (*GREY, *more)
    for name, change in found.items():
        torch.testing.assert_close(change(images, 0.0), images, rtol=0, atol=1e-5, msg=name)
        distances = [float((change(images, level) - images).square().mean()) for level in LEVELS]
        assert distances[1] > 1e-7 and distances[-1] > 1.5 * distances[1], name
        for level in LEVELS:
            changed = change(images, level)
            assert changed.shape == images.shape and 0 <= changed.min() and changed.max() <= 1, name


def test_curves_by_loops():
    images, energy = pictures(), SquaredEuclidean()
    found = strength(flat, energy, images, levels=(0.0, 0.7))
    for name, change in changes(*images.shape, device=images.device).items():
        clean, changed = flat(images).double(), flat(change(images, 0.7)).double()
        energies = [[float((clean[i] - changed[j]).square().sum()) for j in range(12)] for i in range(12)]
        assert found[name]["energy"][1] == pytest.approx(np.mean([energies[i][i] for i in range(12)]), rel=1e-4)
        areas = [np.mean([energies[i][j] > energies[i][i] for j in range(12) if j != i]) for i in range(12)]
        assert found[name]["auroc"] == pytest.approx([1, np.mean(areas)], abs=1e-6)
        assert found[name]["levels"] == [0, 0.7] and found[name]["monotone"] == pytest.approx(1)
        assert found[name]["energy"][0] == pytest.approx(0, abs=1e-5)


def test_an_energy_of_pixels_rises_with_every_strength():
    found = strength(flat, SquaredEuclidean(), pictures(40))
    assert set(found) == set(GREY) and json.loads(json.dumps(found)) == found
    for name in ("crop", "brightness", "contrast", "noise", "erasing", "blur"):
        assert found[name]["monotone"] == pytest.approx(1), name


def test_a_flat_energy_is_chance_and_has_no_direction():
    found = strength(lambda x: torch.ones(len(x), 3), Cosine(), pictures())
    for curve in found.values():
        assert curve["auroc"] == [0.5] * len(LEVELS) and curve["monotone"] is None
        assert curve["energy"] == pytest.approx([-1] * len(LEVELS))


def test_ties_count_one_half():
    class Rank(Energy):
        """0 for every pair of images but one."""

        factorises = False

        def cross(self, a, b):
            energies = torch.zeros(len(a), len(b))
            energies[0, 1] = 1
            return energies

    found = strength(flat, Rank(), pictures(3), levels=(0.0,))
    assert found["crop"]["auroc"] == pytest.approx([(0.75 + 0.5 + 0.5) / 3])


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="images must be at least two, got 1"):
        strength(flat, Cosine(), pictures(1))
    with pytest.raises(ValueError, match=r"levels must be in \[0, 1\], got \(0.0, 1.5\)"):
        strength(flat, Cosine(), pictures(), levels=(0.0, 1.5))
