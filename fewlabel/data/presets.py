"""View presets: which changes leave an image of one field the same thing, as plain figures (no torch)."""

import math
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

from fewlabel.errors import UserError

__all__ = ["PRESETS", "SMALL_IMAGE", "ViewPreset", "preset_named", "resolve_preset"]

SMALL_IMAGE = 64
"""Views of at most this many pixels a side follow the small-image rule: never blurred, and distorted in
colour with `ViewPreset.small_image_strength` (SimCLR, arXiv 2002.05709, appendix B.9: CIFAR-10 at 32 px
without blur, strength 0.5). The paper draws no line between 32 and 224 px; here it lies above the 64 px
sets."""


@dataclass(frozen=True)
class ViewPreset:
    """How two views of one image may differ in one field of imaging.

    The figures of `natural` are those of SimCLR (arXiv 2002.05709, appendix A). `brightness`, `contrast`,
    `saturation` and `hue` mean what they mean to torchvision's ColorJitter, at strength 1.
    """

    name: str
    why: str
    """What the preset is for and why it differs from `natural`, for a person to read."""
    min_area: float = 0.08
    """Smallest share of the image's area that a crop shows; the largest is all of it."""
    horizontal_flip: float = 0.5
    """Probability of mirroring left and right."""
    vertical_flip: float = 0.0
    """Probability of mirroring top and bottom."""
    quarter_turns: bool = False
    """Also turn by 0, 90, 180 or 270 degrees, each as likely."""
    rotation: float = 0.0
    """Largest further turn either way, in degrees; 45 beside `quarter_turns` makes every angle as likely."""
    shear: float = 0.0
    """Largest horizontal slant either way, in degrees."""
    shift: float = 0.0
    """Largest move of the crop either way, as a share of the image's width and height; it may cross the
    edge."""
    padding: Literal["reflection", "border"] = "reflection"
    """What lies beyond the image's edge: its mirror image, or its outermost pixels repeated (faster, and
    the same where nothing turns, slants or shifts the crop across the edge)."""
    colour_probability: float = 0.8
    """Probability of brightness, contrast, saturation and hue being changed, in random order."""
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    """In turns of the colour circle; at most 0.5."""
    greyscale: float = 0.2
    """Probability of dropping colour."""
    blur: float = 0.5
    """Probability of a Gaussian blur, with sigma of 0.1 to 2 pixels and a kernel of a tenth of the view's
    side."""
    small_image_strength: float = 1.0
    """Strength of the colour distortion under the small-image rule."""

    def mild(self) -> "ViewPreset":
        """The same changes half as large, colour dropped and images blurred half as often, and shifts instead of crops.

        For training with labels: what must stay the same thing for a person need not be hard to recognise. A crop is
        enlarged to fill the view, and a network that learned labels from enlarged images misjudges whole ones (Touvron
        et al. 2019, "Fixing the train-test resolution discrepancy", arXiv 1906.06423). So the whole image is moved by
        up to what lies on either side of the smallest crop. Mirrors and quarter turns have no degrees, so they stay.
        """
        smallest_side = math.sqrt(1 - (1 - self.min_area) / 2)
        return replace(
            self,
            **{name: getattr(self, name) / 2 for name in _DEGREES},
            min_area=1.0,
            shift=max(self.shift / 2, (1 - smallest_side) / 2),
        )


_DEGREES = ("rotation", "shear", "brightness", "contrast", "saturation", "hue", "greyscale", "blur")

_ALL = (
    ViewPreset(
        name="natural",
        why=(
            "Photographs of things and scenes: SimCLR's own figures. A thing stays itself when mirrored "
            "left to right, cropped to 8 % of the picture, under another light or in another colour; and "
            "without strong colour distortion two crops would be matched by their colour histogram alone. "
            "Up to 64 px: half the strength and no blur, as the paper does on CIFAR-10."
        ),
        padding="border",
        small_image_strength=0.5,
    ),
    ViewPreset(
        name="xray",
        why=(
            "Radiographs. Grey means density, so hue, saturation and greyscale mean nothing and are off. "
            "Exposure and windowing differ from one machine to the next, so brightness and contrast change "
            "strongly, at every image size. Patients stand a little turned or off centre: turns up to 10 "
            "degrees, moves up to 5 %. Never mirrored: the side is a finding (where the heart and stomach "
            "lie, which lung is ill), and a mirrored chest is that of dextrocardia. A crop shows at least "
            "20 % of the area, since less is often lung texture found in every chest. Small signs such as "
            "nodules and fine lines must survive: blur is rarer."
        ),
        min_area=0.2,
        horizontal_flip=0.0,
        rotation=10.0,
        shift=0.05,
        saturation=0.0,
        hue=0.0,
        greyscale=0.0,
        blur=0.2,
    ),
    ViewPreset(
        name="fundus",
        why=(
            "Photographs of the retina. The field is a disc without an upright edge, so any angle will do, "
            "and both mirrors: left and right eyes are each other's mirror images and most diseases strike "
            "either, so that the side of the eye is what features should not spend themselves on. Keep to "
            "another preset if the side or the quadrant of a lesion is the label. Bleeding, exudate and "
            "vessels are told apart by their colour: hue moves by 2 % at most, saturation a little, colour "
            "is never dropped. Flash and pigment vary, so brightness and contrast change by up to 40 %. "
            "Micro-aneurysms are a few pixels wide: blur is rare, and a crop shows at least 20 % so that "
            "the disc or the macula often lies in both views."
        ),
        min_area=0.2,
        vertical_flip=0.5,
        quarter_turns=True,
        rotation=45.0,
        brightness=0.4,
        contrast=0.4,
        saturation=0.2,
        hue=0.02,
        greyscale=0.0,
        blur=0.1,
    ),
    ViewPreset(
        name="histology",
        why=(
            "Stained tissue under the microscope. A section lies on the glass any way up: quarter turns and "
            "both mirrors are exact and cost no pixel; free angles would resample every nucleus for "
            "nothing. The stain's tone differs between laboratories, scanners and days more than between "
            "tissues: saturation changes fully and hue a little more than for photographs, at every image "
            "size, or features would learn the laboratory. Size tells cells apart, so a crop shows at least "
            "20 % and nuclei never swell more than about twofold. Colour is dropped less often than for "
            "photographs, since the two stains carry the structure."
        ),
        min_area=0.2,
        vertical_flip=0.5,
        quarter_turns=True,
        padding="border",
        brightness=0.6,
        contrast=0.6,
        saturation=0.8,
        hue=0.25,
        greyscale=0.1,
        blur=0.2,
    ),
    ViewPreset(
        name="dermoscopy",
        why=(
            "Skin lesions under the dermatoscope. Skin has no upright and no handedness: every angle and "
            "both mirrors. Colour is diagnostic (blue-white veil, brown network, red vessels): hue moves by "
            "2 %, saturation by 20 %, and colour is never dropped. Light and exposure vary between devices: "
            "brightness and contrast up to 40 %. Asymmetry and border are judged over the whole lesion, so "
            "a crop shows at least 25 % of the area. Fine structures such as network and dots carry the "
            "diagnosis: blur is rare."
        ),
        min_area=0.25,
        vertical_flip=0.5,
        quarter_turns=True,
        rotation=45.0,
        brightness=0.4,
        contrast=0.4,
        saturation=0.2,
        hue=0.02,
        greyscale=0.0,
        blur=0.1,
    ),
    ViewPreset(
        name="digits",
        why=(
            "Handwritten digits and letters of 8 to 32 px. A mirrored digit is another sign and so is one "
            "turned too far (6 and 9): no mirrors, turns up to 15 degrees, and a slant up to 10 degrees, as "
            "hands slant. Half a digit can be another digit (the upper half of 8 is 0): a crop shows at "
            "least 40 %, moved by up to 5 %. Ink has no colour: only brightness and contrast change. Beyond "
            "the edge the paper goes on, since a mirrored stroke there would write another sign. Never "
            "blurred: strokes are two pixels wide."
        ),
        min_area=0.4,
        horizontal_flip=0.0,
        rotation=15.0,
        shear=10.0,
        shift=0.05,
        padding="border",
        brightness=0.4,
        contrast=0.4,
        saturation=0.0,
        hue=0.0,
        greyscale=0.0,
        blur=0.0,
    ),
)

PRESETS: dict[str, ViewPreset] = {preset.name: preset for preset in _ALL}


def preset_named(name: str) -> ViewPreset:
    """The preset of that name.

    Raises:
        UserError: there is none; the message gives the nearest names.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = get_close_matches(name.lower(), PRESETS, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise UserError(f"There are no views called '{name}'. {hint}Choose auto or one of: {', '.join(PRESETS)}.")


def resolve_preset(name: str, hints_views: str | None, channels: int) -> str:
    """The name of the preset to use: `name` itself, or for "auto" what the source suggests (`hints_views`),
    else `xray` for one channel and `natural` for more.

    Raises:
        UserError: no preset has that name.
    """
    if name == "auto":
        name = hints_views or ("xray" if channels == 1 else "natural")
    return preset_named(name).name
