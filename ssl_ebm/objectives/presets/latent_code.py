"""Latent-code objectives: the same of K codes has to explain two views, and all codes have to be used.

Training compares distributions over codes, E(x, x') = <q(x'), E_k(x)> + a free energy; afterwards a pair is scored by
the code that it shares, -log Σ_k p(k|x) p(k|x') / p(k).
"""

from __future__ import annotations

from ssl_ebm.energies.codes import CodeCrossEntropy, Codes, SharedCode
from ssl_ebm.networks.heads import MLP, HeadSpec
from ssl_ebm.objectives.objective import Objective
from ssl_ebm.objectives.parts.code_targets import Centred, Equipartition
from ssl_ebm.objectives.parts.contrasts import Attract
from ssl_ebm.objectives.parts.regularizers import KoLeo, MeanEntropy
from ssl_ebm.objectives.parts.targets import StopGradient, Target, Teacher

DINO_PROJECTOR = MLP(
    hidden=(2048, 2048), out=256, activation="gelu", hidden_norm=False, prototypes=65536, frozen_prototypes=0.01
)


def dino(
    *,
    temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    warmup_teacher_temperature: float | None = None,
    warmup: float = 0.0,
    center_momentum: float = 0.9,
    assignment: str = "centring",
    koleo_weight: float = 0.0,
    teacher_momentum: float = 0.996,
    final_teacher_momentum: float = 1.0,
    projector: MLP = DINO_PROJECTOR,
) -> Objective:
    """H(softmax((t - C)/τ_t), softmax(z/τ_s)): self-distillation from a teacher with centring and sharpening.

    It is the mean over the 2 (V - 1) pairs of a global target view and another view. C is updated after scoring.
    `assignment` "sinkhorn" replaces the centring (`center_momentum` is not used) with 3 iterations over all ranks'
    batch, as in DINOv2, which also adds KoLeo on the features of the global views (weight .1; here over the whole
    batch, there within a GPU).
    Source: Caron et al. 2021, arXiv 2104.14294 (facebookresearch/dino): 65536 codes, τ_s .1, τ_t .04, m .9, momentum
    .996 → 1 (.9995 at batch 256), 2048-2048-256 GELU head, last layer frozen for 1 of 100 epochs; Oquab et al. 2023,
    arXiv 2304.07193: τ_t from .04 to .07 over the first 30 epochs.
    """
    codes = Codes(temperature=temperature)
    teacher = Teacher(momentum=teacher_momentum, final_momentum=final_teacher_momentum)
    if assignment not in ("centring", "sinkhorn"):
        raise ValueError(f"assignment must be 'centring' or 'sinkhorn', got {assignment!r}")
    target: Target
    if assignment == "sinkhorn":
        target = Equipartition(
            of=teacher,
            codes=codes,
            epsilon=teacher_temperature,
            warmup_epsilon=warmup_teacher_temperature,
            warmup=warmup,
        )
    else:
        target = Centred(
            of=teacher,
            codes=codes,
            count=projector.dim,
            temperature=teacher_temperature,
            warmup_temperature=warmup_teacher_temperature,
            warmup=warmup,
            center_momentum=center_momentum,
        )
    return Objective(
        energy=CodeCrossEntropy(codes),
        contrast=Attract(),
        target=target,
        regularizers={"koleo": KoLeo(weight=koleo_weight)} if koleo_weight else {},
        heads=HeadSpec(projector=projector),
        scorer=SharedCode(codes, count=projector.dim),
    )


def swav(
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    prototypes: int = 3000,
    frozen_prototypes: float = 0.01,
    queue_size: int = 0,
    queue_start: float = 0.0,
    projector: MLP = MLP(hidden=(2048,), out=128),
) -> Objective:
    """-Σ_k q_k(x') log p_k(x): predict the other view's code, where codes are assigned equally often (Sinkhorn).

    It is the mean over pairs of a global view and another view. `queue_size` embeddings of earlier batches join the
    assignment of small batches: 3840 from epoch 15 of 400 at batch 256. Prototypes are unit vectors by their
    parametrisation; the authors' code normalises them after each update instead.
    Source: Caron et al. 2020, arXiv 2006.09882 (facebookresearch/swav): 3000 prototypes, frozen 313 iterations (an
    epoch), τ .1, ε .05, 3 iterations.
    """
    codes = Codes(temperature=temperature, prototypes=prototypes, dim=projector.dim, frozen=frozen_prototypes)
    return Objective(
        energy=CodeCrossEntropy(codes),
        contrast=Attract(),
        target=Equipartition(
            of=StopGradient(),
            codes=codes,
            epsilon=epsilon,
            iterations=iterations,
            queue_size=queue_size,
            dim=projector.dim,
            queue_start=queue_start,
        ),
        heads=HeadSpec(projector=projector),
        scorer=SharedCode(codes, count=prototypes),
    )


def msn(
    *,
    temperature: float = 0.1,
    target_temperature: float = 0.25,
    entropy_weight: float = 1.0,
    prototypes: int = 1024,
    iterations: int = 3,
    teacher_momentum: float = 0.996,
    final_teacher_momentum: float = 1.0,
    projector: MLP = MLP(hidden=(2048, 2048), out=256, activation="gelu"),
) -> Objective:
    """H(sinkhorn(sharp p_t), p) + λ (log K - H(p̄)): predict the teacher's code, use all codes on average.

    The teacher's p is sharpened to p^(1/T): its logits have temperature τ·T. p̄ is the mean over views and all ranks.
    This is the head of masked siamese networks, on views that are not masked; `iterations` 0: no Sinkhorn.
    Source: Assran et al. 2022, arXiv 2204.07141 (facebookresearch/msn): 1024 prototypes, τ .1, T .25, λ 1, momentum
    .996 → 1 linearly; the prototypes are shared by both branches.
    """
    if not target_temperature > 0:
        raise ValueError(f"target_temperature must be > 0, got {target_temperature}")
    codes = Codes(temperature=temperature, prototypes=prototypes, dim=projector.dim)
    teacher = Teacher(momentum=teacher_momentum, final_momentum=final_teacher_momentum, schedule="linear")
    return Objective(
        energy=CodeCrossEntropy(codes),
        contrast=Attract(),
        target=Equipartition(
            of=teacher,
            codes=codes,
            epsilon=temperature * target_temperature,
            iterations=iterations,
            softmax_first=True,
        ),
        regularizers={"mean_entropy": MeanEntropy(codes, weight=entropy_weight)},
        heads=HeadSpec(projector=projector),
        scorer=SharedCode(codes, count=prototypes),
    )
