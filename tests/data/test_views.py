"""Two views of a batch: the whole path, for every preset, depth and number of channels."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from fewlabel.data import views as views_module
from fewlabel.data.colour import ColourParameters
from fewlabel.data.crop import affine_maps, resample
from fewlabel.data.presets import PRESETS
from fewlabel.data.views import TwoViews, contact_sheet
from fewlabel.errors import UserError

CHANGES = (
    reference.adjust_brightness,
    reference.adjust_contrast,
    reference.adjust_saturation,
    reference.adjust_hue,
)


def batch(count=6, channels=3, side=48, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(7)
    high = 256 if dtype == torch.uint8 else 65536
    pixels = torch.randint(0, high, (count, channels, side, side), generator=generator)
    return pixels.to(dtype), torch.rand(count, generator=generator) + 0.5


def made(views, pixels, aspect, seed=0):
    return views(pixels, aspect, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_every_preset_gives_two_different_normalised_views(name, channels):
    pixels, aspect = batch(channels=channels)
    first, second = made(TwoViews(name, 32, [0.4] * channels, [0.2] * channels), pixels, aspect)
    for view in (first, second):
        assert view.shape == (6, channels, 32, 32)
        assert view.dtype == torch.float32
        assert view.min() >= -2 - 1e-5
        assert view.max() <= 3 + 1e-5
    assert (first - second).abs().mean() > 0.05


@pytest.mark.parametrize("size", [96, 32])
def test_views_equal_torchvision_given_the_parameters(size, monkeypatch):
    """Crop, colours in the drawn order, greyscale, blur and normalisation, image by image by torchvision."""
    monkeypatch.setattr(views_module, "CPU_CHUNK", 3 * 3 * size * size)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels, aspect = batch(count=10, side=60)
    views = TwoViews("natural", size, mean, std)
    aspects = aspect.repeat(2)
    drawn = views.draw(aspects, 3, torch.Generator().manual_seed(0))
    ours = views.apply(pixels, aspects, drawn)
    blurred = 0
    for n in range(20):
        image = pixels[n % 10].float() / 255
        box = type(drawn.crop)(*(values[n : n + 1] for values in drawn.crop))
        image = resample(image[None], affine_maps(box, aspects[n : n + 1]), size, "border")[0]
        for change in drawn.colour.order[n].tolist():
            if change >= 0:
                image = CHANGES[change](image, float(drawn.colour.factors[n, change]))
        if drawn.colour.greyscale[n]:
            image = reference.rgb_to_grayscale(image, num_output_channels=3)
        if size > 64 and drawn.sigma[n] > 0:
            image = reference.gaussian_blur(image, [9, 9], [float(drawn.sigma[n])] * 2)
            blurred += 1
        torch.testing.assert_close(ours[n], reference.normalize(image, mean, std), atol=2e-4, rtol=0)
    assert blurred > 0 or size <= 64


@pytest.mark.parametrize("chunk", [1, 10_000, 10**9])
def test_chunks_and_memory_layout_change_nothing(chunk, monkeypatch):
    pixels, aspect = batch(count=9)
    views = TwoViews("natural", 80, [0.5] * 3, [0.25] * 3)
    expected = made(views, pixels, aspect)
    monkeypatch.setattr(views_module, "CPU_CHUNK", chunk)
    ours = made(views, pixels.contiguous(memory_format=torch.channels_last), aspect)
    for view, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(view, other, atol=1e-4, rtol=0)


def test_a_seed_repeats_the_views_whatever_the_global_generator_does():
    pixels, aspect = batch()
    views = TwoViews("histology", 32, [0.5] * 3, [0.25] * 3)
    before = torch.get_rng_state()
    first = made(views, pixels, aspect)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again = made(views, pixels, aspect)
    other = made(views, pixels, aspect, seed=1)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_sixteen_bits_keep_their_depth():
    """Values that agree in their upper eight bits stay different."""
    levels = torch.arange(64 * 64).reshape(1, 1, 64, 64) % 256 + 0x4000
    views = TwoViews("xray", 64, [0.0], [1.0], strength=0.0)
    first, _ = made(views, levels.to(torch.uint16), torch.ones(1))
    low, high = 0x4000 / 65535, 0x40FF / 65535
    assert first.min() >= low - 1e-6
    assert first.max() <= high + 1e-6
    assert len(first.unique()) > 200


def test_sixteen_bits_equal_eight_bits_of_the_same_grey():
    pixels, aspect = batch(channels=1)
    deep = (pixels.int() * 257).to(torch.uint16)
    views = TwoViews("xray", 48, [0.5], [0.25])
    for shallow, other in zip(made(views, pixels, aspect), made(views, deep, aspect), strict=True):
        torch.testing.assert_close(shallow, other, atol=1e-5, rtol=0)


def test_one_view_follows_the_generator_and_mild_presets_change_less():
    pixels = torch.randint(0, 256, (6, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    make = partial(TwoViews, image_size=40, mean=(0.5,) * 3, std=(0.25,) * 3)
    views, aspect = make(PRESETS["natural"]), torch.ones(6)
    one, other = views(pixels, aspect, torch.Generator().manual_seed(3))
    both = views.one(pixels, aspect.repeat(2), torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat([one, other]), both)
    for preset in PRESETS.values():
        mild = preset.mild()
        # A square of side 1 - 2 * shift is as large as the smallest crop of half the strength.
        assert mild.min_area == 1
        assert 1 - (1 - 2 * mild.shift) ** 2 == pytest.approx((1 - preset.min_area) / 2)
        assert (mild.contrast, mild.blur) == (preset.contrast / 2, preset.blur / 2)
        assert (mild.horizontal_flip, mild.quarter_turns) == (preset.horizontal_flip, preset.quarter_turns)
    # What is shifted and never cropped is shifted half as far.
    assert replace(PRESETS["xray"], min_area=1.0, shift=0.05).mild().shift == 0.025


def test_small_image_rule():
    natural = [TwoViews("natural", size, [0.5] * 3, [0.25] * 3) for size in (32, 64, 65, 224)]
    assert [views.strength for views in natural] == [0.5, 0.5, 1.0, 1.0]
    assert [views.blur_radius for views in natural] == [0, 0, 3, 11]
    assert TwoViews("xray", 28, [0.5], [0.25]).strength == 1.0
    assert TwoViews("natural", 32, [0.5] * 3, [0.25] * 3, strength=0.8).strength == 0.8


def test_views_are_full_precision_inside_autocast():
    pixels, aspect = batch(side=80)
    views = TwoViews("natural", 80, [0.5] * 3, [0.25] * 3)
    expected = made(views, pixels, aspect)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = made(views, pixels, aspect)
    assert torch.equal(ours[0], expected[0])
    assert torch.equal(ours[1], expected[1])


def test_bad_values_are_refused():
    with pytest.raises(UserError, match=r"strength of views is 3; 'natural' takes a number from 0 up to 2\.5"):
        TwoViews("natural", 32, [0.5], [0.25], strength=3)
    with pytest.raises(UserError, match=r"'xray' takes a number from 0 up\.$"):
        TwoViews("xray", 32, [0.5], [0.25], strength=-1)
    with pytest.raises(UserError, match="Did you mean natural"):
        TwoViews("naturel", 32, [0.5], [0.25])
    pixels, aspect = batch()
    with pytest.raises(ValueError, match=r"of 1 channels, not torch\.uint8 of 3"):
        made(TwoViews("natural", 32, [0.5], [0.25]), pixels, aspect)
    with pytest.raises(ValueError, match=r"not torch\.float32"):
        made(TwoViews("natural", 32, [0.5] * 3, [0.25] * 3), pixels.float(), aspect)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (5, "RGB")])
def test_contact_sheet_shows_image_and_views_in_rows(channels, mode, tmp_path):
    pixels, _ = batch(count=2, channels=channels, side=32)
    mean, std = [0.3] * channels, [0.5] * channels
    shown = pixels.float() / 255
    normalised = (shown - 0.3) / 0.5
    contact_sheet(pixels, normalised, 1 - normalised, mean, std, tmp_path / "views.png")
    sheet = Image.open(tmp_path / "views.png")
    assert sheet.mode == mode
    assert sheet.size == (3 * 34, 2 * 34)
    drawn = reference.pil_to_tensor(sheet)[:, 34:66]
    expected = pixels[1, : drawn.shape[0]]
    assert (drawn[:, :, :32].int() - expected.int()).abs().max() <= 1
    assert (drawn[:, :, 34:66].int() - expected.int()).abs().max() <= 1
    assert (drawn[:, :, 68:100].int() - expected.int()).abs().float().mean() > 10
    assert [path.name for path in tmp_path.iterdir()] == ["views.png"]


def test_colour_parameters_are_not_changed_by_apply():
    pixels, aspect = batch()
    views = TwoViews("natural", 32, [0.5] * 3, [0.25] * 3)
    drawn = views.draw(aspect, 3, torch.Generator().manual_seed(0))
    kept = ColourParameters(*(values.clone() for values in drawn.colour))
    source = pixels.clone()
    views.apply(pixels, aspect, drawn)
    assert torch.equal(pixels, source)
    assert all(torch.equal(a, b) for a, b in zip(drawn.colour, kept, strict=True))
