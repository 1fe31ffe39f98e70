import numpy as np
import pytest
import torch

from ssl_ebm.evaluation.energy.mistakes import worst_mistakes


def by_loops(energy, labels, count):
    """Every ordered pair of two classes, lowest first, without those that share an image with an earlier one."""
    n = len(labels)
    pairs = sorted((float(energy[i, j]), i, j) for i in range(n) for j in range(n) if labels[i] != labels[j])
    found, taken = [], set()
    for value, i, j in pairs:
        if not taken & {i, j} and len(found) < count:
            found.append((i, j, value))
            taken |= {i, j}
    return found


@pytest.mark.parametrize("seed", range(3))
def test_mistakes_are_those_of_a_loop_over_all_pairs(seed):
    generator = torch.Generator().manual_seed(seed)
    energy = torch.randn(40, 40, generator=generator)
    labels = torch.randint(0, 4, (40,), generator=generator)
    pairs, energies = worst_mistakes(energy.__getitem__, labels, count=6, chunk=7)
    expected = by_loops(energy, labels.tolist(), 6)
    assert [tuple(pair) for pair in pairs.tolist()] == [(i, j) for i, j, _ in expected]
    np.testing.assert_array_equal(energies.numpy(), np.array([value for *_, value in expected], dtype=np.float32))


def test_one_class_makes_no_mistakes():
    pairs, energies = worst_mistakes(torch.zeros(5, 5).__getitem__, torch.zeros(5, dtype=torch.int64))
    assert pairs.shape == (0, 2) and energies.shape == (0,)


def test_an_image_is_in_one_pair_only():
    energy = torch.arange(16.0).reshape(4, 4)
    pairs, energies = worst_mistakes(energy.__getitem__, torch.tensor([0, 1, 1, 0]))
    assert pairs.tolist() == [[0, 1], [2, 3]] and energies.tolist() == [1.0, 11.0]
