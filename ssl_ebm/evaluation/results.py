"""What evaluation.json holds, as dataclasses, from which docs/results_schema.md is made.

A field without a default is in every file of this version, and the report relies on it; what else a file does not have
is left out of the report.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

from ssl_ebm.evaluation.described_json import as_markdown
from ssl_ebm.evaluation.energy.calibration import CalibrationResult
from ssl_ebm.evaluation.energy.verification import EnergyResult
from ssl_ebm.evaluation.probes.knn import KnnResult

VERSION = 5  # of the protocol; a change makes stored baselines stale


@dataclass(frozen=True, kw_only=True)
class Results:
    """The whole file."""

    run: Annotated[str, "The run's directory when it was evaluated."]
    objective: Annotated[ObjectiveRecord, "What was trained."]
    protocol: Annotated[ProtocolRecord, "What was measured on what."]
    rows: Annotated[EncoderRows, "The encoder, and what needs no training, by the same code on the same images."]
    energy: Annotated[PairEnergies, "Energies of pairs of views."]
    config: Annotated[dict[str, Any], "The run's resolved config, as in config.yaml."]
    ood: Annotated[dict[str, dict[str, Detection]] | None, "Of each foreign data set, by each score."] = None
    image: Annotated[ImageEnergies | None, "Energies of single images; null without a generative head."] = None
    cost: Annotated[Cost | None, "Of training, and of the encoder."] = None
    missing: Annotated[
        dict[str, str] | None,
        "Of its author's parts that were not given (`objective`), how to give them.",
    ] = None


@dataclass(frozen=True, kw_only=True)
class ObjectiveRecord:
    """An objective, as the catalogue describes it."""

    name: Annotated[str, "In the config."]
    family: Annotated[str, "By how it limits the volume of low energy."]
    energy: Annotated[str, "Formula of the energy that scores pairs."]
    conservative: Annotated[bool, "Whether its update is the gradient of a function."]
    surrogate: Annotated[bool, "Whether the energy is not what the loss is a function of."]
    reads_labels: Annotated[bool, "Whether it needs labels."]


@dataclass(frozen=True, kw_only=True)
class ProtocolRecord:
    """All that the numbers depend on besides the config; how each part was measured, in words."""

    version: Annotated[int, "Of the protocol. Results of another version are not compared with these."]
    data: Annotated[str, "The data set's name."]
    split_seed: Annotated[int, "Of the validation split."]
    sizes: Annotated[dict[str, int], 'Images of "train", "validation" and "test".']
    layer: Annotated[str, "Where features are taken."]
    seed: Annotated[int, "Of the run."]
    step: Annotated[int, "Updates when it was evaluated."]
    finished: Annotated[bool, "Whether that was its last update."]
    weights: Annotated[str, "SHA-256 of encoder.safetensors, which the results are of."]
    images: Annotated[str, "How images are given to the encoder."] = ""
    knn: Annotated[str, "Of the rows' knn."] = ""
    linear: Annotated[str, "Of the rows' linear."] = ""
    ridge: Annotated[str, "Of the rows' ridge."] = ""
    few_shot: Annotated[str, "Of the rows' few_shot."] = ""
    sgd: Annotated[str, "Of the rows' sgd."] = ""
    clusters: Annotated[str, "Of the rows' clusters."] = ""
    energy: Annotated[str, "Of all verification."] = ""
    information: Annotated[str, "Of the canonical energy's information."] = ""
    strength: Annotated[str, "Of the energy's strength."] = ""
    ood: Annotated[str, "Of ood."] = ""


@dataclass(frozen=True, kw_only=True)
class EncoderRows:
    """One row for each encoder. `random_encoder` and `pretrained_encoder` exclude each other."""

    encoder: Annotated[EncoderRow, "The run's."]
    random_encoder: Annotated[EncoderRow | None, "The same network at its initial weights."] = None
    pretrained_encoder: Annotated[EncoderRow | None, "The same, where these were trained elsewhere."] = None
    raw_pixels: Annotated[EncoderRow | None, "No network."] = None


BASELINES = tuple(field.name for field in fields(EncoderRows) if field.name != "encoder")


@dataclass(frozen=True, kw_only=True)
class EncoderRow:
    """Frozen features of all images, probed. Hyper-parameters are chosen on validation, test is read once."""

    num_features: Annotated[int, "Dimensions."]
    knn: Annotated[KnnProbe, "Weighted k nearest neighbours."]
    linear: Annotated[LinearProbe, "Multinomial logistic regression."]
    health: Annotated[Health, "Rank and spread, without labels."]
    energy: Annotated[Verification, "Verification by the cosine energy of the features."]
    ridge: Annotated[RidgeProbe | None, "Least squares onto one-hot targets."] = None
    few_shot: Annotated[dict[str, FewShot] | None, "By the number of training images a class."] = None
    sgd: Annotated[SgdProbe | None, "The literature's linear probe, where it was asked for."] = None
    clusters: Annotated[Clusters | None, "k-means."] = None


@dataclass(frozen=True, kw_only=True)
class KnnProbe:
    """kNN at a fixed setting and at the best on validation, and both grids."""

    headline: Annotated[KnnChoice, "k = 20, T = .07."]
    chosen: Annotated[KnnChoice, "The best of the grid on validation."]
    validation: Annotated[KnnResult, "Accuracies of the validation split against train."]
    test: Annotated[KnnResult, "Accuracies of the test split against train and validation."]


@dataclass(frozen=True, kw_only=True)
class KnnChoice:
    """One cell of the grids."""

    k: Annotated[int, "Neighbours."]
    temperature: Annotated[float | None, "T of their weights exp(s/T); null: one vote each."]
    accuracy: Annotated[float, "On test, in [0, 1]."]
    validation_accuracy: Annotated[float, "On validation."]
    per_class: Annotated[list[float | None], "Accuracy of each class on test; null for a class without an image."]


@dataclass(frozen=True, kw_only=True)
class Classification:
    """A classifier's scores on test."""

    top1: Annotated[float, "Accuracy in [0, 1]."]
    top5: Annotated[float | None, "The label is among the five highest; null unless there are more than 5 classes."]
    per_class: Annotated[list[float | None], "Accuracy of each class; null for a class without an image."]
    confusion: Annotated[list[list[int]], "Counts, [true][predicted]."]
    ece: Annotated[float | None, "Expected calibration error in [0, 1]; null where scores are no logits."]
    nll: Annotated[float | None, "Mean of -log p(label) in nats; null there and where a class was never seen."]
    size: Annotated[int, "Images."]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A linear classifier on standardised features, fitted to train, refitted to train and validation."""

    protocol: Annotated[str, "Its name."]
    at_edge: Annotated[bool, "Whether the choice is the first or last of its grid."]
    validation: Annotated[list[float], "Accuracy on validation for each value of the grid."]
    unseen_classes: Annotated[list[int], "Classes without a training image."]
    test: Annotated[Classification, "Scores of the choice."]


@dataclass(frozen=True, kw_only=True)
class RidgeProbe(Probe):
    """Least squares."""

    strength: Annotated[float, "The chosen penalty λ."]
    strengths: Annotated[list[float], "The grid."]


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Probe):
    """Logistic regression by L-BFGS."""

    strength: Annotated[float, "The chosen C, the inverse of the penalty."]
    strengths: Annotated[list[float], "The grid."]
    converged: Annotated[list[bool], "Whether each fit of the grid ended before its last iteration."]
    iterations: Annotated[list[int], "Of each fit."]
    refit_converged: Annotated[bool, "Whether that of the choice did."]
    refit_iterations: Annotated[int, "Its iterations."]


@dataclass(frozen=True, kw_only=True)
class SgdProbe(Probe):
    """Logistic regression by stochastic gradients."""

    rate: Annotated[float, "The chosen learning rate."]
    rates: Annotated[list[float], "The grid."]
    epochs: Annotated[int, "Passes over the features."]
    batch_size: Annotated[int, "Features an update."]
    momentum: Annotated[float, "In [0, 1)."]
    seed: Annotated[int, "Of the order."]


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """A classifier of few images a class."""

    accuracies: Annotated[list[float], "On test, one a draw of training images."]
    mean: Annotated[float, "Of the draws."]
    std: Annotated[float, "Of the draws, with n - 1."]
    short_classes: Annotated[int, "Classes with fewer images, which give all they have."]


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """As many clusters of test images as classes, beside the classes."""

    nmi: Annotated[float, "Normalised mutual information, in [0, 1]."]
    ari: Annotated[float, "Adjusted Rand index, 0 by chance."]
    accuracy: Annotated[float, "Of the best matching of clusters with classes."]


@dataclass(frozen=True, kw_only=True)
class Health:
    """Features of held-out test images, without labels."""

    rankme: Annotated[float, "Effective rank of the features, from 1 to their dimension."]
    alignment: Annotated[float, "Mean squared distance of an image's view on the unit sphere, in [0, 4]."]
    uniformity: Annotated[float, "log mean exp(-2 distance²) on the unit sphere; 0 after a collapse."]
    std: Annotated[float, "Mean over unit vectors' dimensions of their std, times √dim; 1 where they spread evenly."]
    dead: Annotated[float, "Part of the dimensions without any spread."]
    alpha_req: Annotated[float | None, "α of eigenvalues λ_j ∝ j^-α; null where there are too few."] = None
    lidar: Annotated[float | None, "Effective rank of images against views; null above 4096 dimensions."] = None
    spectrum: Annotated[list[float] | None, "The largest singular values, as parts of the sum of all."] = None


@dataclass(frozen=True, kw_only=True)
class Verification(EnergyResult):
    """Does the energy tell two views of one image from views of two images? All pairs, low = compatible."""

    calibration: Annotated[CalibrationResult | None, "Of the probability that two views are of one image."] = None


@dataclass(frozen=True, kw_only=True)
class PairEnergies:
    """Energies of two views of held-out test images, the same views for all runs that have these views."""

    trained: Annotated[Verification | None, "Verification by the trained energy; null where it was not given."]
    features: Annotated[Verification, "Verification by the cosine energy of the features."]
    canonical: Annotated[CanonicalEnergy | None, "The trained energy as an estimate of -PMI in nats."] = None
    strength: Annotated[dict[str, StrengthCurve] | None, "For each augmentation, energy by its strength."] = None


@dataclass(frozen=True, kw_only=True)
class CanonicalEnergy:
    """What the trained energy means, and what it says of information once it is in nats."""

    meaning: Annotated[str, 'As the catalogue has it; "order": it only orders pairs and has no canonical form.']
    reason: Annotated[str, "Why there is no canonical energy although it has a meaning."] = ""
    calibration_images: Annotated[int | None, "Training images that the canonical energy was fitted on."] = None
    information: Annotated[Information | None, "Lower bounds on the mutual information of two views."] = None
    verification: Annotated[Verification | None, "Verification by the canonical energy."] = None


@dataclass(frozen=True, kw_only=True)
class Information:
    """Lower bounds in nats; null where a bound is below what a number can hold."""

    infonce: Annotated[float | None, "InfoNCE, at most log n."]
    nwj: Annotated[float | None, "Nguyen, Wainwright and Jordan's."]
    jsd: Annotated[float | None, "The same of the critic that the Jensen-Shannon divergence prefers."]
    pairs: Annotated[int, "n."]


@dataclass(frozen=True, kw_only=True)
class StrengthCurve:
    """Energy of a clean image with itself, augmented."""

    levels: Annotated[list[float], "Strengths in [0, 1]."]
    energy: Annotated[list[float], "Mean energy at each level."]
    auroc: Annotated[list[float], "P(E(x, aug(x')) > E(x, aug(x))) at each level."]
    monotone: Annotated[float | None, "Spearman's correlation of level and energy; null where the energy is flat."]


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A score of images, foreign ones being positive."""

    auroc: Annotated[float, "P(score of a foreign image > score of a test image)."]
    fpr95: Annotated[float, "Part of the test images taken for foreign where 95% of the foreign ones are found."]
    roc: Annotated[dict[str, list[float]], '"fpr" and "tpr", from (0, 0) to (1, 1).']


@dataclass(frozen=True, kw_only=True)
class ImageEnergies:
    """E(x) of test images, of samples and of foreign sets, at the size of the training's views."""

    edges: Annotated[list[float], "Of the histograms' bins, common to all."]
    histograms: Annotated[dict[str, list[int]], "Counts by set."]
    mean: Annotated[dict[str, float], "By set."]
    std: Annotated[dict[str, float], "By set."]
    gradient_cosine: Annotated[float | None, "Generative gradient with the objective's, late in training."] = None
    steps: Annotated[int | None, "Of the sampler's chains from noise."] = None
    temperature: Annotated[float | None, "At which they sample."] = None
    sampling_failed: Annotated[str, "Why there are no samples."] = ""
    classifier: Annotated[Classification | None, "Of p(y | x) on test, of a head that has one."] = None
    log_likelihood: Annotated[LogLikelihood | None, "Of an RBM."] = None


@dataclass(frozen=True, kw_only=True)
class LogLikelihood:
    """Mean log p(image) in nats, with an annealed estimate of log Z."""

    train: Annotated[float, "Of training images, as many as test has."]
    test: Annotated[float, "Of test images."]
    independent: Annotated[float, "Of test images under a Bernoulli for each pixel."]
    log_partition: Annotated[float, "log Z."]
    standard_error: Annotated[float, "Of log Z."]
    effective_samples: Annotated[float, "Of the chains."]
    chains: Annotated[int, "Of annealed importance sampling."]
    temperatures: Annotated[int, "Its steps."]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Time is of one machine under one load."""

    train_seconds: Annotated[float | None, "Of all updates."]
    images_per_second: Annotated[float | None, "Median in training, views and updates included."]
    flops_per_image: Annotated[float | None, "Of the backbone's forward, a multiply-add being two; null: none counted."]
    parameters: Annotated[int, "Of the backbone."]


def documentation() -> str:
    """The text of docs/results_schema.md."""
    return f"""# evaluation.json

Made by `python -m ssl_ebm.evaluation.results > docs/results_schema.md`. Protocol version {VERSION}.

`ssl-ebm evaluate RUN` writes this file into the run's directory; `ssl_ebm.evaluation.stored.read_results` reads it, and
refuses files of another version. Keys with a question mark may be absent. Energies are low where two images are
compatible; accuracies and areas are in [0, 1]. Encoders that were trained elsewhere (`--timm`, `--features`) have a
`protocol` of their own and `rows.encoder` with the probes that were asked for, and nothing else.

{as_markdown(Results)}"""


if __name__ == "__main__":
    print(documentation(), end="")
