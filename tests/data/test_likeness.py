"""How alike two pictures are: the hash is the one that others use, and a threshold knows what is typical."""

import numpy as np
import pytest
import scipy.fft
import torch

from fewlabel.data.likeness import Scale, copy_threshold, perceptual_hash, signature, window_of


def test_the_hash_is_that_of_imagehash():
    """Transcribed from `imagehash.phash`, for pictures that have its size already."""
    pictures = torch.rand(20, 32, 32, generator=torch.Generator().manual_seed(0))
    for picture, found in zip(pictures.numpy(), perceptual_hash(pictures), strict=True):
        low = scipy.fft.dct(scipy.fft.dct(picture, axis=0), axis=1)[:8, :8]
        bits = "".join("1" if bit else "0" for bit in (low > np.median(low)).flatten())
        assert found.tobytes().hex() == f"{int(bits, 2):016x}"


def test_brightness_and_contrast_change_no_signature_and_flat_pictures_have_none():
    pictures = torch.rand(5, 32, 32, generator=torch.Generator().manual_seed(0))
    signatures = signature(window_of(pictures))
    torch.testing.assert_close(signature(window_of(0.3 * pictures + 0.2)), signatures)
    flat = signature(window_of(torch.full((1, 32, 32), 0.4)))
    assert not flat.any()
    units = Scale.of(signatures).units(torch.cat([signatures, flat]))
    assert units.norm(dim=1).tolist() == pytest.approx([1, 1, 1, 1, 1, 0])


@pytest.mark.parametrize(("shared", "expected"), [(0.0, 0.925), (1.0, 0.97)])
def test_copies_of_a_collection_of_likes_must_be_more_alike(shared, expected):
    units = torch.randn(300, 63, generator=torch.Generator().manual_seed(0))
    units = torch.nn.functional.normalize(units + 20 * shared, dim=1)
    assert copy_threshold(units) == pytest.approx(expected, abs=1e-6)
