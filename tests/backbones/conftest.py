"""Networks without weights, for counts; random images."""

import pytest
import torch

from fewlabel.backbones.cost import count_parameters
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import UNSCALED, create
from fewlabel.backbones.scale import Scale


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def size_of():
    """(parameters, feature width) of a backbone, built without weights."""

    def count(name, image_size, scale=UNSCALED, **options):
        with without_weights():
            backbone = create(name, image_size=image_size, scale=scale, **options)
        return count_parameters(backbone), backbone.num_features

    return count


@pytest.fixture(scope="session")
def scaled_sizes():
    """(image size, parameters) of a backbone at phi -1, 0, 1, 2 and 3."""

    def count(name, image_size, **options):
        rows = []
        for phi in range(-1, 4):
            with without_weights():
                backbone = create(name, image_size=image_size, scale=Scale.compound(phi), **options)
            rows.append((backbone.image_size, count_parameters(backbone)))
        return rows

    return count


@pytest.fixture(scope="session")
def random_images():
    """(batch, channels, size, size) of standard normal numbers, always the same."""

    def make(batch, channels, size, seed=0):
        return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(seed))

    return make
