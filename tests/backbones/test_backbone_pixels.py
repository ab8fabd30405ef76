"""From pictures of any kind to what the backbone was trained to see."""

import numpy as np
import pytest
import torch
from PIL import Image

from fewlabel.backbones.featurizer import Featurizer
from fewlabel.backbones.registry import create
from fewlabel.errors import UserError


def _featurizer(in_chans):
    backbone = create("mobilenetv3_small_050", image_size=16, in_chans=in_chans)
    return Featurizer(backbone, [0.5] * in_chans, [0.25] * in_chans).eval()


@pytest.fixture(scope="module")
def encoder():
    return _featurizer(in_chans=3)


def test_the_feature_is_that_of_the_preprocessed_image(encoder):
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(encoder(images), encoder.backbone((images - 0.5) / 0.25))


def test_pictures_of_any_size_and_kind_become_one_batch(encoder):
    generator = np.random.default_rng(0)
    colour = generator.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    deep = generator.integers(0, 65536, (20, 25), dtype=np.uint16)
    pictures = [
        Image.fromarray(colour),
        Image.fromarray(colour).convert("L"),
        Image.fromarray(deep),
        colour,
        deep,
        deep.astype(">u2")[:, :, None],
        colour.astype(np.float64) / 255,
        colour[:16, :16],
    ]
    batch = encoder.preprocess(pictures)
    assert batch.shape == (8, 3, 16, 16)
    assert batch.dtype == torch.float32
    as_tensor = torch.from_numpy(colour).permute(2, 0, 1)[None]
    for same in (batch[3:4], batch[6:7], encoder.preprocess(as_tensor), encoder.preprocess(as_tensor / 255)):
        torch.testing.assert_close(same, batch[:1], atol=1e-5, rtol=0)
    torch.testing.assert_close(batch[2], batch[4], rtol=0, atol=0)
    torch.testing.assert_close(batch[5], batch[4], rtol=0, atol=0)
    # Grey goes to all three channels alike.
    assert torch.equal(batch[1, 0], batch[1, 2])
    # Already the right size: only scaled and normalised.
    exact = (torch.from_numpy(colour[:16, :16]).permute(2, 0, 1) / 255 - 0.5) / 0.25
    torch.testing.assert_close(batch[7], exact)


def test_resizing_agrees_with_pillow_and_sees_every_pixel(encoder):
    pixels = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    ours = (encoder.preprocess([pixels])[0] * 0.25 + 0.5) * 255
    theirs = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR))
    assert np.abs(ours.permute(1, 2, 0).numpy() - theirs).max() < 1.01
    images = torch.rand(1, 3, 50, 70, requires_grad=True)
    encoder.preprocess(images).sum().backward()
    assert (images.grad != 0).all()


def test_colour_becomes_luma_for_a_grey_encoder():
    encoder = _featurizer(in_chans=1)
    colour = np.random.default_rng(2).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(colour).convert("L")).astype(np.float32) / 255
    got = encoder.preprocess([colour])[0, 0].numpy() * 0.25 + 0.5
    assert np.abs(got - expected).max() < 1.01 / 255


def test_orientation_and_transparency_are_applied(encoder):
    pixels = np.random.default_rng(3).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 3
    assert torch.equal(encoder.preprocess([turned]), encoder.preprocess([pixels[::-1, ::-1]]))
    alpha = np.where(np.arange(16)[:, None, None] < 8, 255, 0).astype(np.uint8) * np.ones((16, 16, 1), np.uint8)
    picture = Image.fromarray(np.concatenate([pixels, alpha], axis=2))
    black = np.where(alpha == 255, pixels, 0).astype(np.uint8)
    assert torch.equal(encoder.preprocess([picture]), encoder.preprocess([black]))


@pytest.mark.parametrize(
    ("images", "hint"),
    [
        ([], "no images"),
        (torch.rand(3, 16, 16), "shape"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.int64), "no known white"),
        (torch.rand(1, 3, 16, 16) * 255, "scale them"),
        (torch.full((1, 3, 16, 16), float("nan")), "scale them"),
        (torch.rand(1, 2, 16, 16), "2 channels and the encoder takes 3"),
        (torch.rand(1, 3, 0, 16), "no pixels"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)], "Image 1 of the list: .*4 channels"),
        ([np.zeros((4, 4), bool)], "type bool"),
        ([np.zeros(4, np.uint8)], "shape"),
        (["cat.jpg"], "str is no picture"),
        ([Image.new("F", (4, 4))], "32-bit"),
    ],
)
def test_pixels_that_cannot_be_understood_are_refused(encoder, images, hint):
    with pytest.raises(UserError, match=hint):
        encoder.preprocess(images)
