import copy
import math
from dataclasses import replace
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from small import small_objective
from torch import Tensor, nn

from ssl_ebm.networks.encoder import Encoder, create_encoder
from ssl_ebm.networks.heads import MLP, HeadSpec, Prototypes, drop_frozen_gradients
from ssl_ebm.networks.joint_embedding import JointEmbedding
from ssl_ebm.networks.stem import MIN_MAP_WIDTH, choose_patch

CONVOLUTIONAL = [
    "resnet18",
    "resnet10t",
    "resnetblur18",
    "regnety_002",
    "test_efficientnet",
    "mobilenetv3_small_050",
    "test_convnext",
    "test_nfnet",
    "test_byobnet",
    "lcnet_035",
    "ghostnet_050",
    "dla46_c",
    "efficientvit_b0",
    "mobilevitv2_050",
    "pvt_v2_b0",  # attention with strided keys
    "test_mambaout",  # channels last
]
TRANSFORMERS = ["test_vit", "test_vit3", "deit_tiny_patch16_224"]
SIZES = [(1, 28), (3, 64)]

sizes = pytest.mark.parametrize(("in_chans", "image_size"), SIZES, ids=["28 grey", "64 colour"])
models = pytest.mark.parametrize("name", CONVOLUTIONAL)


def width(network: nn.Module, in_chans: int, image_size: int) -> int:
    """Of the last feature map, channels first or last."""
    with torch.no_grad():
        return network.eval().forward_features(torch.rand(1, in_chans, image_size, image_size)).shape[2]


def measured_stride(encoder: Encoder) -> float:
    """How many pixels more give one more position of the last feature map."""
    sizes = 64, 96
    positions = [width(encoder.backbone, encoder.in_chans, size) for size in sizes]
    return (sizes[1] - sizes[0]) / (positions[1] - positions[0])


@pytest.mark.parametrize(  # each at one size; at the other it is slow
    ("name", "in_chans", "image_size"),
    [
        pytest.param(name, *size, marks=() if (i + j) % 2 else pytest.mark.slow, id=f"{name}-{size[1]}")
        for i, name in enumerate(CONVOLUTIONAL)
        for j, size in enumerate(SIZES)
    ],
)
def test_stem_is_adapted_by_structure(name: str, in_chans: int, image_size: int) -> None:
    encoder = create_encoder(name, in_chans=in_chans, image_size=image_size)
    assert encoder.output_stride == measured_stride(encoder)
    last = width(encoder.backbone, in_chans, image_size)
    assert abs(last - image_size / encoder.output_stride) <= 1  # without padding, or with, or the pixel lost by a patch
    assert MIN_MAP_WIDTH <= last and encoder.output_stride >= image_size / 8  # enough positions, no more than needed
    changes = encoder.recipe["stem_changes"]
    assert changes and all(change == "Identity()" or change.startswith("stride=(1, 1)") for change in changes.values())

    features = encoder.eval()(torch.rand(2, in_chans, image_size, image_size))
    assert features.shape == (2, encoder.num_features) and features.isfinite().all()
    plain = timm.create_model(name, in_chans=in_chans, num_classes=0)
    plain.load_state_dict(encoder.backbone.state_dict(), strict=True)


@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize(("in_chans", "image_size", "patch"), [(1, 28, 4), (3, 32, 4), (3, 64, 8), (3, 224, 16)])
def test_patches_are_chosen(name: str, in_chans: int, image_size: int, patch: int) -> None:
    encoder = create_encoder(name, in_chans=in_chans, image_size=image_size)
    assert encoder.output_stride == patch and encoder.backbone.patch_embed.patch_size == (patch, patch)
    assert encoder.backbone.patch_embed.num_patches == (image_size // patch) ** 2
    assert encoder.eval()(torch.rand(2, in_chans, image_size, image_size)).shape == (2, encoder.num_features)
    recipe = {key: value for key, value in encoder.recipe.items() if key != "stem_changes"}
    timm.create_model(**recipe).load_state_dict(encoder.backbone.state_dict(), strict=True)


@pytest.mark.parametrize(
    ("name", "image_size", "stride"), [("resnet10t", 64, 32), ("dla46_c", 64, 32), ("test_vit", 32, 16)]
)
def test_without_adaptation_it_is_the_timm_model(name: str, image_size: int, stride: int) -> None:
    encoder = create_encoder(name, image_size=image_size, adapt=False, mean=[0.1, 0.2, 0.3], std=[0.5, 1.0, 2.0]).eval()
    assert encoder.output_stride == stride and encoder.recipe["stem_changes"] == {}
    size = {"img_size": image_size} if name in TRANSFORMERS else {}
    plain = timm.create_model(name, num_classes=0, **size).eval()
    plain.load_state_dict(encoder.backbone.state_dict(), strict=True)
    images = torch.rand(2, 3, image_size, image_size)
    channels = [(images[:, c] - mean) / std for c, (mean, std) in enumerate([(0.1, 0.5), (0.2, 1.0), (0.3, 2.0)])]
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), plain(torch.stack(channels, dim=1)))


def test_large_images_need_no_adaptation() -> None:
    encoder = create_encoder("resnet10t", image_size=224)
    assert encoder.output_stride == 32 and encoder.recipe["stem_changes"] == {}


def test_adapted_weights_are_only_moved_closer() -> None:
    """The stride taken away, every other pixel of the output is the one that it was."""
    adapted, plain = create_encoder("test_resnet", image_size=28), timm.create_model("test_resnet", num_classes=0)
    plain.load_state_dict(adapted.backbone.state_dict())
    images = torch.rand(1, 3, 28, 28)
    torch.testing.assert_close(adapted.backbone.conv1[0](images)[..., ::2, ::2], plain.conv1[0](images))


@pytest.mark.parametrize("stride", [32, 16, 8, 4, 2, 1])
@pytest.mark.parametrize("adapt", [True, False])
def test_output_stride_is_honoured(stride: int, adapt: bool) -> None:
    encoder = create_encoder("test_resnet", image_size=32, output_stride=stride, adapt=adapt)
    assert encoder.output_stride == measured_stride(encoder) == stride


@pytest.mark.parametrize("patch", [1, 7, 28])
def test_output_stride_of_a_transformer_is_its_patch(patch: int) -> None:
    encoder = create_encoder("test_vit", image_size=28, output_stride=patch)
    assert encoder.output_stride == patch and encoder.backbone.patch_embed.num_patches == (28 // patch) ** 2


def test_smallest_patches() -> None:
    assert [choose_patch(size) for size in (7, 8, 14, 28, 32, 96, 224, 448)] == [1, 1, 2, 4, 4, 12, 16, 16]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnt18", {}, "unknown timm model 'resnt18': did you mean 'resnet18'"),
        ("test_vit.a_tag", {}, r"unknown timm model 'test_vit.a_tag': did you mean 'test_vit\."),
        ("test_resnet", {"output_stride": 12}, r"output_stride must be one of \[32, 16, 8, 4, 2, 1\].* got 12"),
        ("test_vit", {"output_stride": 5}, r"output_stride must be one of \[1, 2, 4, 7, 14, 28\].* got 5"),
        ("test_vit", {"output_stride": 0}, "output_stride must be one of .* got 0"),
        ("test_vit", {"image_size": 5}, "image_size must be at least 7 pixels for a transformer, got 5"),
        ("test_vit", {"adapt": False}, "test_vit does not run on 3-channel images of 28 pixels"),
        ("test_resnet", {"image_size": 1}, "ResNet does not run on 1-pixel images.* larger image_size"),
        (
            "densenet121",
            {"image_size": 16, "adapt": False},
            "densenet121 does not run on 3-channel images of 16 pixels",
        ),
        ("test_resnet", {"image_size": 0}, "image_size must be >= 1, got 0"),
        ("test_resnet", {"in_chans": 0}, "in_chans must be >= 1, got 0"),
        ("test_resnet", {"chanels": 3}, "'test_resnet' does not take these arguments: .*chanels"),
    ],
)
def test_mistakes(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        create_encoder(name, **{"image_size": 28, **arguments})
    assert "\n" not in str(error.value)


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="pretrained weights of 'test_resnet' cannot be loaded .*pretrained=False"):
        create_encoder("test_resnet", image_size=28, pretrained=True)


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 32), (2, 3, 28, 27)])
def test_other_images_are_refused(shape: tuple[int, ...]) -> None:
    encoder = create_encoder("test_resnet", image_size=28).eval()
    with pytest.raises(ValueError, match=r"takes images of \(3, 28, 28\) .*got"):
        encoder(torch.rand(shape))
    if shape[1] == 3:
        assert encoder.at_any_size(torch.rand(shape)).shape == (2, encoder.num_features)


def test_sizes_that_the_network_takes() -> None:
    for name, size, arguments in (("test_resnet", 12, {}), ("deit_tiny_patch16_224", 12, {"dynamic_img_size": True})):
        encoder = create_encoder(name, image_size=28, **arguments)
        encoder.require_size(size)
        assert encoder.training and encoder.at_any_size(torch.rand(2, 3, size, size)).shape[1] == encoder.num_features
    encoder.require_size(28)


@pytest.mark.parametrize(("size", "arguments"), [(12, {}), (10, {"dynamic_img_size": True})])  # 10: not of patches of 4
def test_sizes_that_the_network_does_not_take(size: int, arguments: dict[str, Any]) -> None:
    encoder = create_encoder("deit_tiny_patch16_224", image_size=28, **arguments)
    message = (
        rf"^deit_tiny_patch16_224 takes images of 28 pixels and not views of {size} \(Input height .*\): use a conv"
    )
    with pytest.raises(ValueError, match=message) as error:
        encoder.require_size(size)
    assert encoder.training and "\n" not in str(error.value)


def test_timm_arguments_are_passed_on() -> None:
    encoder = create_encoder("test_resnet", image_size=28, channels=(8, 8, 8, 24))
    assert encoder.num_features == 24 and encoder.recipe["channels"] == (8, 8, 8, 24)


def test_encoder_construction_changes_no_statistics() -> None:
    encoder = create_encoder("test_resnet", image_size=28)
    assert encoder.training and encoder.backbone.training
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(norm.num_batches_tracked == 0 and norm.running_mean.eq(0).all() for norm in norms)


def layers(head: nn.Module) -> list[str]:
    described = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            described.append(f"{layer.in_features}→{layer.out_features}" + ("+b" if layer.bias is not None else ""))
        elif isinstance(layer, nn.BatchNorm1d):
            scale, shift = layer.weight is not None, layer.bias is not None
            described.append("BN" + "γ" * scale + "β" * shift)
        else:
            described.append(type(layer).__name__)
    return described


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (MLP(hidden=(), out=3), ["5→3+b"]),
        (MLP(hidden=(), out=3, output_bias=False), ["5→3"]),
        (MLP(hidden=(4,), out=3), ["5→4", "BNγβ", "ReLU", "4→3+b"]),
        (MLP(hidden=(4,), out=3, hidden_norm=False), ["5→4+b", "ReLU", "4→3+b"]),
        (MLP(hidden=(4,), out=3, activation="gelu", hidden_norm=False), ["5→4+b", "GELU", "4→3+b"]),
        (MLP(hidden=(4,), out=3, activation="leaky_relu"), ["5→4", "BNγβ", "LeakyReLU", "4→3+b"]),
        (MLP(hidden=(4, 6), out=3, output_norm="batch"), ["5→4", "BNγβ", "ReLU", "4→6", "BNγβ", "ReLU", "6→3", "BNγβ"]),
        (MLP(hidden=(4,), out=3, output_norm="batch_no_bias"), ["5→4", "BNγβ", "ReLU", "4→3", "BNγ"]),
        (MLP(hidden=(4,), out=3, output_norm="batch_no_affine"), ["5→4", "BNγβ", "ReLU", "4→3", "BN"]),
    ],
)
def test_heads_are_what_they_say(spec: MLP, expected: list[str]) -> None:
    head = spec.build(5)
    assert layers(head) == expected
    output = head(torch.randn(8, 5))
    assert output.shape == (8, 3)
    if spec.output_norm != "none":
        torch.testing.assert_close(output.mean(0), torch.zeros(3), rtol=0, atol=1e-6)
        torch.testing.assert_close(output.var(0, correction=0), torch.ones(3), rtol=1e-2, atol=1e-2)


def test_prototypes_give_cosines_with_unit_vectors() -> None:
    torch.manual_seed(0)
    spec = MLP(hidden=(4,), out=3, prototypes=7)
    assert (spec.dim, MLP(out=3).dim) == (7, 3)
    head = spec.build(5).double()
    assert layers(head) == ["5→4", "BNγβ", "ReLU", "4→3+b", "Prototypes"]
    weight = head[-1].weight
    assert weight.shape == (7, 3)
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(7, dtype=torch.float64))
    weight.data.mul_(torch.linspace(0.1, 9, 7)[:, None])  # lengths do nothing
    x = torch.randn(8, 5, dtype=torch.float64)
    with torch.no_grad():
        logits, z = head.eval()(x), head[:-1](x)
    assert logits.shape == (8, spec.dim)
    for i in range(8):
        for k in range(7):
            dot, lengths = sum(a * b for a, b in zip(z[i], weight[k], strict=True)), z[i].norm() * weight[k].norm()
            assert logits[i, k].item() == pytest.approx((dot / lengths).item(), abs=1e-12)


def test_prototypes_keep_their_precision_under_autocast() -> None:
    prototypes, z = Prototypes(16, 32), torch.randn(4, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = prototypes(z), prototypes(z.bfloat16())
    assert within[0].dtype == within[1].dtype == torch.float32
    assert torch.equal(within[0], prototypes(z)) and torch.equal(within[1], prototypes(z.bfloat16().float()))


def test_frozen_prototypes_have_no_gradient_and_the_rest_has_the_same() -> None:
    prototypes, x, gradients = Prototypes(4, 6), torch.randn(5, 4), {}
    for frozen in (False, True):
        prototypes.frozen, prototypes.weight.grad = frozen, None
        z = x.clone().requires_grad_()
        prototypes(z).square().sum().backward()
        gradients[frozen] = z.grad, prototypes.weight.grad
    assert torch.equal(gradients[True][0], gradients[False][0])
    assert gradients[False][1].abs().sum() > 0 and torch.equal(gradients[True][1], torch.zeros(6, 4))


def prototype_model(**spec: Any) -> JointEmbedding:
    torch.manual_seed(0)
    heads = HeadSpec(projector=MLP(hidden=(8,), out=4, prototypes=6, **spec))
    return JointEmbedding(tiny_encoder(), heads, uses=frozenset({"target"}))


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_prototypes_thaw(optimizer: type[torch.optim.Optimizer]) -> None:
    model = prototype_model(frozen_prototypes=0.5)
    prototypes, start = model.projector[-1], model.projector[-1].weight.detach().clone()
    update, moved = optimizer(model.parameters(), lr=0.01, weight_decay=0.1), []
    for step in range(4):
        model.set_progress(step / 4)
        update.zero_grad(set_to_none=True)
        model(views(step)).projection.square().sum().backward()
        drop_frozen_gradients(model)
        update.step()
        moved.append(not torch.equal(prototypes.weight, start))
        assert not model.teacher[1][-1].frozen
        if optimizer is torch.optim.AdamW and moved[-1]:
            assert update.state[prototypes.weight]["step"] == step - 1  # those when it was frozen are not counted
    assert moved == [False, False, True, True]
    never = prototype_model()
    never.set_progress(0.0)
    assert not never.projector[-1].frozen


@pytest.mark.filterwarnings("ignore:`broadcast_buffers` is deprecated:FutureWarning")
def test_data_parallel_training_copes_with_prototypes_that_thaw(tmp_path: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        model = prototype_model(frozen_prototypes=0.5)
        network = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
        found = []
        for step in range(4):
            model.set_progress(step / 4)
            model.zero_grad(set_to_none=True)
            network((views(step), views(step, 1)[..., :5, :5])).projection.square().sum().backward()
            found.append(float(model.projector[-1].weight.grad.abs().sum()) > 0)
            drop_frozen_gradients(model)
    finally:
        torch.distributed.destroy_process_group()
    assert found == [False, False, True, True]


def tiny_encoder() -> Encoder:
    backbone = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Encoder(backbone, in_chans=1, image_size=8, output_stride=1, mean=[0.4], std=[0.2])


def joint_embedding(objective: str = "byol") -> JointEmbedding:
    torch.manual_seed(0)
    built = small_objective(objective)
    return JointEmbedding(tiny_encoder(), built.heads, uses=built.uses)


def views(seed: int = 0, number: int = 2, images: int = 5) -> Tensor:
    return torch.rand(number, images, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_embeddings_of_all_views(number: int) -> None:
    index, label = torch.arange(5), torch.arange(5) % 2
    embeddings = joint_embedding()(views(number=number), index, label)
    assert embeddings.features.shape == (number, 5, 6)
    for part in (embeddings.projection, embeddings.prediction, embeddings.target):
        assert part.shape == (number, 5, 4)
    assert embeddings.index is index and embeddings.label is label


@pytest.mark.parametrize("objective", ["simclr", "simsiam", "moco_v2", "byol"])
def test_only_the_branches_asked_for_are_built(objective: str) -> None:
    model, uses = joint_embedding(objective), small_objective(objective).uses
    embeddings = model(views())
    assert (model.predictor is not None) == (embeddings.prediction is not None) == ("prediction" in uses)
    assert (model.teacher is not None) == (embeddings.target is not None) == ("target" in uses)
    model.update_teacher(0.5)  # without a teacher: nothing


def test_views_keep_their_places() -> None:
    model, images = joint_embedding().eval(), views()
    embeddings = model(images)
    for view in range(2):
        alone = model(images[view : view + 1])
        torch.testing.assert_close(embeddings.projection[view], alone.projection[0])
        torch.testing.assert_close(embeddings.target[view], alone.target[0])
        torch.testing.assert_close(embeddings.features[view], model.encoder(images[view]))
        torch.testing.assert_close(embeddings.prediction[view], model.predictor(embeddings.projection[view]))


def test_views_of_two_sizes_are_those_of_each_size() -> None:
    model = joint_embedding().eval()
    large, small = views(number=2), views(1, number=3)[..., :6, :6]
    together, first, second = model((large, small)), model(large), model(small)
    assert (together.global_views, first.global_views) == (2, None)
    for part in ("features", "projection", "prediction"):
        expected = torch.cat([getattr(first, part), getattr(second, part)])
        torch.testing.assert_close(getattr(together, part), expected)
    assert together.projection.shape == (5, 5, 4) and together.target.shape == (2, 5, 4)
    torch.testing.assert_close(together.target, first.target)
    alone = model((large,))
    assert alone.global_views == 2 and torch.equal(alone.projection, first.projection)


def test_heads_normalise_views_of_all_sizes_together_and_backbones_those_of_one() -> None:
    large, small = views(number=2), views(1, number=3)[..., :6, :6]
    model = joint_embedding()
    embeddings = model((large, small))
    passes = [m.num_batches_tracked.item() for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert passes == [2, 1, 1, 1, 1]  # backbone, projector, predictor; teacher's backbone and projector
    each = [joint_embedding().encoder.at_any_size(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in (large, small)]
    torch.testing.assert_close(embeddings.features, torch.cat(each))
    expected = joint_embedding().projector(torch.cat(each).flatten(0, 1)).unflatten(0, (5, 5))
    torch.testing.assert_close(embeddings.projection, expected)


def test_teacher_sees_global_views_only() -> None:
    large, small = views(number=2), views(1, number=3)[..., :6, :6]
    one, two = joint_embedding(), joint_embedding()
    one((large, small)), two(large)
    for key, value in one.teacher.state_dict().items():
        assert torch.equal(value, two.teacher.state_dict()[key])


def test_a_predictor_takes_the_codes() -> None:
    heads = HeadSpec(projector=MLP(hidden=(), out=3, prototypes=6), predictor=MLP(hidden=(3,), out=6))
    model = JointEmbedding(tiny_encoder(), heads)
    assert layers(model.predictor)[0] == "6→3" and model(views()).prediction.shape == (2, 5, 6)


def test_views_are_normalised_together() -> None:
    model, images = joint_embedding(), views()
    projection = model(images).projection
    assert not torch.allclose(joint_embedding()(images[:1]).projection[0], projection[0], atol=1e-4)


def test_teacher_starts_equal_and_takes_no_gradient() -> None:
    model = joint_embedding()
    embeddings = model(views())
    assert torch.equal(embeddings.target, embeddings.projection.detach()) and not embeddings.target.requires_grad
    small_objective("byol")(embeddings).loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    students = [*model.encoder.parameters(), *model.projector.parameters(), *model.predictor.parameters()]
    # a bias before a BatchNorm has no gradient, all else has
    assert all(p.grad is not None and p.grad.isfinite().all() for p in students)
    assert sum(p.grad.abs().sum() > 0 for p in students) >= len(students) - 1


def test_teacher_is_a_moving_average_in_closed_form() -> None:
    model, momenta = joint_embedding().double(), [0.9, 0.5, 0.99, 0.0, 0.7]
    generator = torch.Generator().manual_seed(2)
    students = [*model.encoder.parameters(), *model.projector.parameters()]
    teachers = list(model.teacher.parameters())
    assert len(students) == len(teachers)
    history = [[p.detach().clone() for p in teachers]]
    for momentum in momenta:
        for p in students:
            p.data.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
        history.append([p.detach().clone() for p in students])
        model.update_teacher(momentum)
    weights = [math.prod(momenta)]  # of the start, then of the student after each step
    weights += [(1 - m) * math.prod(momenta[i + 1 :]) for i, m in enumerate(momenta)]
    assert sum(weights) == pytest.approx(1)
    for k, teacher in enumerate(teachers):
        expected = sum(weight * parameters[k] for weight, parameters in zip(weights, history, strict=True))
        torch.testing.assert_close(teacher.detach(), expected, rtol=1e-12, atol=1e-12)


def test_teacher_has_batch_statistics_of_its_own() -> None:
    model = joint_embedding()
    for p in model.teacher.parameters():
        p.data.mul_(2)
    before = copy.deepcopy(dict(model.teacher.named_buffers()))
    model(views())
    norms = [("backbone.1", model.encoder, model.teacher[0])]
    for name, student, teacher in norms:
        ours, theirs = student.get_submodule(name), teacher.get_submodule(name)
        assert ours.num_batches_tracked == theirs.num_batches_tracked == 1
        torch.testing.assert_close(theirs.running_mean, 2 * ours.running_mean)
    statistics = {key: value.clone() for key, value in model.teacher.named_buffers()}
    assert any(not torch.equal(statistics[key], before[key]) for key in before)
    model.update_teacher(0.5)
    assert all(torch.equal(value, statistics[key]) for key, value in model.teacher.named_buffers())
    model.eval()
    model(views(1))
    assert all(torch.equal(value, statistics[key]) for key, value in model.teacher.named_buffers())


def test_state_dict_holds_the_teacher() -> None:
    model, other = joint_embedding(), joint_embedding()
    for p in model.parameters():
        p.data.add_(1)
    model(views())
    other.load_state_dict(model.state_dict())
    one, two = model.eval()(views(1)), other.eval()(views(1))
    assert torch.equal(one.target, two.target) and torch.equal(one.prediction, two.prediction)


def test_head_specs_are_values() -> None:
    spec = HeadSpec(projector=MLP(out=3))
    assert spec == HeadSpec(projector=MLP(out=3)) and replace(spec, predictor=MLP()) != spec
    with pytest.raises(ValueError, match=r"layer widths must be >= 1, got \(0, 3\)"):
        MLP(hidden=(0,), out=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prototypes": -1}, r"prototypes must be >= 0 \(0: none\), got -1"),
        ({"prototypes": 5, "frozen_prototypes": 1.5}, r"frozen_prototypes .* must be in \[0, 1\], got 1.5"),
        ({"frozen_prototypes": 0.1}, "frozen_prototypes=0.1 without prototypes: give prototypes=K"),
    ],
)
def test_mistakes_in_heads(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(**arguments)
