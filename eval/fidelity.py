"""Is every objective the published one? Against loop oracles, against lightly, and on several processes.

    python eval/fidelity.py                 float64 oracles: value and gradient of every objective
    python eval/fidelity.py --ranks 2 4     and one process against so many: ratio and cosine of the gradients
    python eval/fidelity.py --lightly       and lightly 1.6.0 (pip install --no-deps lightly==1.6.0 hydra-core)

The oracles are the tests' (tests/reference*.py): loops over images and dimensions that share no code with the library.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.energies.codes import Codes
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.heads import MLP
from ssl_ebm.objectives import OBJECTIVES, Objective, create_objective
from ssl_ebm.objectives.parts.regularizers import KoLeo, MeanEntropy, NuclearNorm, SlicedGaussianity
from ssl_ebm.objectives.presets.regularized import barlow_twins, emp_ssl, mmcr, tico, vicreg, wmse

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "objectives")]

try:
    from lightly import loss as lightly
    from lightly.loss.hypersphere_loss import HypersphereLoss
except ImportError:
    lightly = None

Pair = tuple[Tensor, Tensor]


def loss(objective: Objective, z: Tensor, target: Tensor | None = None) -> Tensor:
    """Ours, of projections and a teacher's."""
    return objective(Embeddings(projection=z, target=target)).loss


def lightly_vicreg(z: Tensor) -> Pair:
    """Agrees."""
    return loss(vicreg(), z), lightly.VICRegLoss()(z[0], z[1])


def lightly_barlow_twins(z: Tensor) -> Pair:
    """Agrees with BatchNorm's biased variance; lightly's λ is .005, the authors' .0051."""
    return loss(barlow_twins(off_diagonal=5e-3), z), lightly.BarlowTwinsLoss(lambda_param=5e-3)(z[0], z[1])


def lightly_lejepa_sigreg(z: Tensor) -> Pair:
    """Agrees on the same directions."""
    ours, theirs = SlicedGaussianity(slices=64), lightly.lejepa_loss.SIGReg(num_vectors=64)
    directions = ours.directions(z)
    ours.directions = lambda _: directions  # type: ignore[method-assign]
    theirs._generate_unit_vectors = lambda *_, **__: directions  # type: ignore[method-assign]
    return ours(z), theirs(z)


def lightly_wmse(z: Tensor) -> Pair:
    """Agrees where one window holds the batch, so that permutations do not matter."""
    views, n, d = z.shape
    theirs = lightly.WMSELoss(embedding_dim=d, w_size=n, num_samples=views)
    return loss(wmse(window=n, projector=MLP(out=d)), z), theirs(z.flatten(0, 1))


def lightly_tico(z: Tensor) -> Pair:
    """The value agrees, also of later batches; without `through_batch` so does the gradient."""
    ours, theirs = tico(through_batch=False, projector=MLP(out=z.shape[2])), lightly.TiCoLoss()
    for _ in range(3):  # the second moment moves
        pair = loss(ours, z, z), theirs(z[0], z[1].detach())
    return pair


def lightly_mmcr(z: Tensor) -> Pair:
    """Differs: lightly does not normalise, and has λ 5e-3 where the authors have 0."""
    sets, half = z.transpose(0, 1), len(z) // 2
    return loss(mmcr(), z), lightly.MMCRLoss()(sets[:, :half], sets[:, half:])


def lightly_mmcr_unit(z: Tensor) -> Pair:
    """On unit vectors and with lightly's λ it agrees, online and momentum views being one set."""
    unit = F.normalize(z, dim=-1)
    half = len(z) // 2
    sets = unit.transpose(0, 1)
    return NuclearNorm(local_weight=5e-3)(z), lightly.MMCRLoss(lmda=5e-3)(sets[:, :half], sets[:, half:])


def lightly_emp_ssl(z: Tensor) -> Pair:
    """Differs: lightly adds the coding rate where the authors subtract it, and does not normalise for it."""
    unit = F.normalize(z, dim=-1)
    return loss(emp_ssl(), z), lightly.EMPSSLLoss()(list(unit))


def lightly_emp_ssl_sign(z: Tensor) -> Pair:
    """With lightly's sign it agrees."""
    return loss(emp_ssl(), z) - 2 * emp_ssl().regularizers["coding_rate"](z), lightly_emp_ssl(z)[1]


def lightly_koleo(z: Tensor) -> Pair:
    """Agrees, up to the 1e-8 that lightly adds to each coordinate's difference."""
    return KoLeo()(z), sum(lightly.KoLeoLoss()(view) for view in z)  # type: ignore[return-value]


def lightly_mean_entropy(z: Tensor) -> Pair:
    """MSN's regularizer; agrees."""
    theirs = lightly.MSNLoss()
    mean = F.softmax(z.flatten(0, 1) / 0.1, dim=1).mean(0)
    return MeanEntropy(Codes(temperature=0.1))(z), theirs.regularization_loss(mean_anchor_probs=mean)


def lightly_simclr(z: Tensor) -> Pair:
    """Agrees."""
    return loss(create_objective("simclr", temperature=0.2), z), lightly.NTXentLoss(temperature=0.2)(*z)


def lightly_moco_v2(z: Tensor) -> Pair:
    """Agrees with an equal queue; lightly's is symmetric only if called twice."""
    ours = create_objective("moco_v2", temperature=0.2, queue_size=32, projector={"out": z.shape[2]})
    theirs = lightly.NTXentLoss(temperature=0.2, memory_bank_size=(32, z.shape[2]))
    theirs.memory_bank.bank = ours.negatives.queue.vectors.double().clone()
    theirs.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
    return loss(ours.double(), z, z), theirs(z[0], z[1].detach())


def lightly_dcl(z: Tensor) -> Pair:
    """Agrees."""
    return loss(create_objective("dcl", temperature=0.2), z), lightly.DCLLoss(temperature=0.2)(*z)


def lightly_dclw(z: Tensor) -> Pair:
    """Agrees."""
    return loss(create_objective("dclw", temperature=0.2), z), lightly.DCLWLoss(temperature=0.2)(*z)


def lightly_align_uniform(z: Tensor) -> Pair:
    """Agrees at lightly's t = 1 on unit vectors, which it expects; the authors' t is 2."""
    unit = F.normalize(z, dim=-1)
    return loss(create_objective("align_uniform", t=1.0), z), HypersphereLoss(t=1.0)(*unit)


def lightly_simsiam(z: Tensor) -> Pair:
    """Agrees."""
    criterion = lightly.NegativeCosineSimilarity()
    ours = create_objective("simsiam")(Embeddings(projection=z, prediction=z)).loss
    return ours, (criterion(z[0], z[1].detach()) + criterion(z[1], z[0].detach())) / 2


def lightly_dino(z: Tensor) -> Pair:
    """Agrees, also after the centre has moved."""
    ours = create_objective("dino", projector={"out": 8, "prototypes": z.shape[2]})
    theirs = lightly.DINOLoss(output_dim=z.shape[2], warmup_teacher_temp=0.04, warmup_teacher_temp_epochs=0)
    for _ in range(2):
        teacher = z.detach().roll(1, 2)
        pair = loss(ours.double(), z, teacher), theirs.double()(list(teacher), list(z), teacher_temp=0.04)
    return pair


def lightly_swav(z: Tensor) -> Pair:
    """Agrees on the same scores."""
    ours = create_objective("swav", prototypes=12, projector={"out": z.shape[2]}).double()
    scores = ours.energy.codes.logits(z)
    return loss(ours, z), lightly.SwaVLoss()(list(scores), [])


def lightly_msn(z: Tensor) -> Pair:
    """The cross-entropy agrees; lightly's takes one target view, and its mean entropy one anchor view at a time."""
    ours = create_objective("msn", prototypes=12, entropy_weight=0, projector={"out": z.shape[2]}).double()
    prototypes = F.normalize(ours.energy.codes.prototypes.detach(), dim=1)
    theirs = lightly.MSNLoss(sinkhorn_iterations=3, regularization_weight=0)
    step = ours(Embeddings(projection=z, target=z.detach()))
    losses = [
        theirs(anchors=z[a], targets=z[1 - a].detach(), prototypes=prototypes, target_sharpen_temperature=0.25)
        for a in (0, 1)
    ]
    return step.loss, torch.stack(losses).mean()


COMPARISONS: dict[str, Callable[[Tensor], Pair]] = {
    "simclr": lightly_simclr,
    "moco_v2": lightly_moco_v2,
    "dcl": lightly_dcl,
    "dclw": lightly_dclw,
    "align_uniform": lightly_align_uniform,
    "vicreg": lightly_vicreg,
    "barlow_twins": lightly_barlow_twins,
    "lejepa (SIGReg)": lightly_lejepa_sigreg,
    "wmse": lightly_wmse,
    "tico": lightly_tico,
    "mmcr": lightly_mmcr,
    "mmcr (unit vectors, its λ)": lightly_mmcr_unit,
    "emp_ssl": lightly_emp_ssl,
    "emp_ssl (its sign)": lightly_emp_ssl_sign,
    "simsiam": lightly_simsiam,
    "dino": lightly_dino,
    "dino (KoLeo)": lightly_koleo,
    "swav": lightly_swav,
    "msn": lightly_msn,
    "msn (mean entropy)": lightly_mean_entropy,
}


def against_lightly() -> None:
    """Value and gradient beside lightly's on the same float64 embeddings, with what differs by intent."""
    print(f"\n{'beside lightly 1.6.0':28}{'ours':>14}{'lightly':>14}{'difference':>12}{'gradient':>12}")
    for name, compare in COMPARISONS.items():
        torch.manual_seed(0)
        z = torch.randn(2, 64, 16, dtype=torch.float64).requires_grad_()
        ours, theirs = compare(z)
        a, b = (torch.autograd.grad(value, z, retain_graph=True)[0] for value in (ours, theirs))
        difference = float((ours - theirs).detach().abs() / theirs.detach().abs())
        gradient = float((a - b).norm() / b.norm())
        note = (compare.__doc__ or "").split("\n")[0]
        print(f"{name:28}{ours.item():14.6f}{theirs.item():14.6f}{difference:12.1e}{gradient:12.1e}  {note}")


def against_oracles() -> None:
    """Largest relative error of value and gradient over two batches, at the papers' constants and at others."""
    from small import batch_for, gradients, small_objective, with_gradients
    from test_objectives import OTHER_CONSTANTS, leaves, oracle_loss

    print(f"{'float64 loop oracle':28}{'value':>12}{'gradient':>12}")
    for name in OBJECTIVES:
        value = gradient = 0.0
        for constants in ({}, OTHER_CONSTANTS[name]):
            objective = small_objective(name, **constants).double()
            for seed in range(2):
                batch = with_gradients(batch_for(objective, seed))
                expected = oracle_loss(name, objective, batch, constants)
                found = objective(batch).loss
                value = max(value, float((found - expected).detach().abs() / expected.detach().abs().clamp(min=1e-6)))
                wanted = leaves(objective, batch)
                for one, two in zip(gradients(found, wanted), gradients(expected, wanted), strict=True):
                    gradient = max(gradient, float((one - two).norm() / two.norm().clamp(min=1e-6)))
        print(f"{name:28}{value:12.1e}{gradient:12.1e}")


def against_ranks(numbers: list[int]) -> None:
    """Ratio of the gradients' norms and their cosine, of one process and of several with a share of the batch each."""
    import test_distributed as ranks

    for number in numbers:
        found = ranks.found_by(number, tuple(OBJECTIVES))[0]["cases"]
        print(f"\n{f'{number} gloo processes':28}{'ratio - 1':>12}{'1 - cosine':>12}")
        for name in OBJECTIVES:
            whole = ranks.train(name)
            ratio = cosine = 0.0
            for one, two in zip(whole["gradients"], found[name]["gradients"], strict=True):
                a, b = (torch.cat([part.flatten().double() for part in parts]) for parts in (one, two))
                if float(a.norm()):
                    ratio = max(ratio, abs(float(b.norm() / a.norm()) - 1))
                    cosine = max(cosine, 1 - float(F.cosine_similarity(a, b, dim=0)))
            print(f"{name:28}{ratio:12.1e}{cosine:12.1e}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lightly", action="store_true", help="beside lightly's losses")
    parser.add_argument("--ranks", type=int, nargs="+", default=[], help="numbers of processes")
    options = parser.parse_args()
    if options.lightly and lightly is None:
        parser.error("lightly is not installed: pip install --no-deps lightly==1.6.0 hydra-core")
    against_oracles()
    if options.lightly:
        against_lightly()
    if options.ranks:
        against_ranks(options.ranks)


if __name__ == "__main__":
    main()
