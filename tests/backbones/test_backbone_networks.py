"""What every network must do, whoever wrote it. What makes each family what it is stands in `families/`."""

import copy
import re

import pytest
import torch

from fewlabel.backbones import load_encoder, save_encoder
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import all_families, check, create, fit_image_size
from fewlabel.backbones.scale import Scale

FAMILIES = [family.name for family in all_families()]
LARGE = [family.large for family in all_families()]
SMALLEST = ["resnet10t", "resnetv2_18", "mobilenetv1_100", "mobilenetv3_small_050", "mobilenetv4_conv_small"]
CONVOLUTIONAL = {family.name for family in all_families() if family.convolutional}
SCALE = Scale(1.5, 0.75)


@pytest.mark.parametrize("name", [*FAMILIES, *SMALLEST, "timm/deit_tiny_patch16_224"])
def test_no_image_sees_another_in_eval_mode(random_images, name):
    backbone = create(name, image_size=32).eval()
    images = random_images(3, 3, 32)
    with torch.no_grad():
        together = backbone(images)
        alone = torch.cat([backbone(image[None]) for image in images])
    assert together.shape == (3, backbone.num_features)
    assert together.dtype == torch.float32
    assert (together - alone).abs().max() < 2e-5 * together.abs().max()


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("size", "width"), [(32, 1), (48, 0.5)])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_gets_a_finite_gradient(random_images, name, size, width, bf16):
    """Narrower at the larger size, as bfloat16 is slow on a processor without it."""
    backbone = create(name, image_size=fit_image_size(name, size), scale=Scale(width=width))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        features = backbone(random_images(2, 3, backbone.image_size))
    assert features.isfinite().all()
    # A sum would have no gradient through a normalisation.
    (features.float() * random_images(1, 1, backbone.num_features)[0, 0, 0]).sum().backward()
    for parameter_name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", LARGE)
def test_the_larger_forms_learn_too(random_images, name):
    """Narrow, as their full width would take long."""
    backbone = create(name, image_size=fit_image_size(name, 96), scale=Scale(width=0.25))
    features = backbone(random_images(2, 3, backbone.image_size))
    (features * random_images(1, 1, backbone.num_features)[0, 0, 0]).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())


@pytest.mark.parametrize("wanted", [8, 12, 28, 48])
@pytest.mark.parametrize("name", FAMILIES)
def test_there_is_a_size_near_any_small_one(random_images, name, wanted):
    size = fit_image_size(name, wanted)
    assert size == wanted or abs(size - wanted) <= 16 or size == 32
    backbone = create(name, image_size=size, in_chans=1).eval()
    with torch.no_grad():
        assert backbone(random_images(2, 1, size)).isfinite().all()


@pytest.mark.parametrize("name", [name for family in all_families() for name in family.members])
def test_every_member_takes_small_images(name):
    """28 px as in MedMNIST, or what is nearest."""
    check(name, image_size=fit_image_size(name, 28), in_chans=1)


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_first_layer_takes_any_number_of_channels(random_images, name, channels):
    backbone = create(name, image_size=fit_image_size(name, 16), in_chans=channels).eval()
    images = random_images(2, channels, backbone.image_size).requires_grad_()
    backbone(images).square().sum().backward()
    # Each channel reaches the features.
    assert (images.grad.abs().sum((0, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    "name", ["resnet", "senet", "mobilenet", "efficientnet", "mobilevit", "resnet50d", "resnetv2_18", "rednet"]
)
def test_a_32_px_image_ends_in_a_4x4_map_only_with_the_small_stem(random_images, name):
    for small_stem, side in [(None, 4), (True, 4), (False, 1)]:
        backbone = create(name, image_size=32, small_stem=small_stem)
        assert backbone.options["small_stem"] is (small_stem is not False)
        with torch.no_grad():
            assert backbone.eval().body.forward_features(random_images(1, 3, 32)).shape[-1] == side
    assert create(name, image_size=128).options["small_stem"] is False


@pytest.mark.parametrize("name", [*FAMILIES, "timm/deit_tiny_patch16_224"])
@pytest.mark.parametrize("scale", [Scale(), Scale(1.5, 1.25, 1.5)], ids=["published", "scaled"])
def test_what_is_recorded_rebuilds_the_same_network(name, scale):
    if name.startswith("timm/"):
        scale = Scale(resolution=scale.resolution)
    with without_weights():
        first = create(name, image_size=32, in_chans=1, scale=scale)
        recorded = {"image_size": first.image_size, "in_chans": first.in_chans, "scale": first.scale}
        again = create(first.name, **recorded, **first.options)
    assert again.timm_call == first.timm_call
    assert again.image_size == first.image_size
    assert [v.shape for v in again.state_dict().values()] == [v.shape for v in first.state_dict().values()]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_scaled_encoder_comes_back_from_disk(tmp_path, random_images, name):
    backbone = create(name, image_size=32, in_chans=1, scale=SCALE)
    with torch.no_grad():
        backbone.train()(random_images(2, 1, 32))
    directory = save_encoder(tmp_path / "encoder", backbone, mean=[0.5], std=[0.25], bits=8, provenance={})
    encoder = load_encoder(directory)
    assert encoder.backbone.scale == SCALE
    images = torch.rand(2, 1, 32, 32)
    arranged = copy.deepcopy(backbone.eval())
    arranged.arrange()
    with torch.no_grad():
        assert torch.equal(encoder(images), arranged((images - 0.5) / 0.25))
    card = (directory / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == (2 if backbone.source == "timm" else 1)
    if backbone.source == "timm":
        scope = {}
        exec(blocks[1].replace('"model.safetensors"', repr(str(directory / "model.safetensors"))), scope)
        with torch.no_grad():
            assert torch.equal(scope["model"](images), backbone(images))


@pytest.mark.parametrize("name", FAMILIES)
def test_more_depth_and_more_width_cost_more(size_of, name):
    published, deeper, wider = (size_of(name, 32, scale)[0] for scale in (Scale(), Scale(depth=2), Scale(width=2)))
    assert deeper > published
    assert wider > published


@pytest.mark.parametrize("name", [*FAMILIES, "timm/deit_tiny_patch16_224"])
def test_nothing_is_random_in_training_unless_asked_for(random_images, name):
    backbone = create(name, image_size=32)
    # Batch statistics don't depend on the call, so two passes agree but for dropping.
    images = random_images(4, 3, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), backbone(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["vit", "resnet", "swin", "cct"])
def test_stochastic_depth_is_random_when_asked_for(random_images, name):
    backbone = create(
        name, image_size=16, drop_path_rate=0.5, **({"zero_init_last": False} if name == "resnet" else {})
    )
    images = random_images(4, 3, 16)
    with torch.no_grad():
        assert not torch.equal(backbone(images), backbone(images))


def test_convolutional_networks_are_told_from_those_of_tokens():
    assert {"resnet", "senet", "mobilenet", "efficientnet", "convmixer", "rednet"} <= CONVOLUTIONAL
    assert not {"vit", "mixer", "fnet", "gmlp", "cct", "eanet", "perceiver", "swin", "gcvit"} & CONVOLUTIONAL
    judged = {
        name: create(f"timm/{name}", image_size=224).convolutional for name in ("resnet18", "deit_tiny_patch16_224")
    }
    assert judged == {"resnet18": True, "deit_tiny_patch16_224": False}


@pytest.mark.parametrize("name", FAMILIES)
def test_what_asks_for_no_weight_decay_is_there(name):
    backbone = create(name, image_size=32)
    assert backbone.no_weight_decay() <= {parameter for parameter, _ in backbone.named_parameters()}
