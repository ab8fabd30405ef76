"""timm's pretrained weights from a stand-in of the hub's cache: nothing is downloaded."""

from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from fewlabel.backbones.pretrained import imagenet_encoder
from fewlabel.errors import UserError

COMMIT = "0" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def put(cache: Path, repository: str, name: str) -> Path:
    """An empty file in the cache's layout, as if it had been downloaded."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    file = folder / "snapshots" / COMMIT / name
    file.parent.mkdir(parents=True)
    file.touch()
    return file


@pytest.fixture
def resnet(cache):
    """A network with a classifier of 1,000 classes, whose weights are in the cache."""
    torch.manual_seed(1)
    model = timm.create_model("test_resnet").eval()
    save_file(model.state_dict(), put(cache, "timm/test_resnet.r160_in1k", "model.safetensors"))
    return model


@pytest.mark.parametrize("name", ["test_resnet", "test_resnet.r160_in1k", "timm/test_resnet"])
def test_the_features_are_those_of_the_weights_in_the_cache(resnet, name):
    state = torch.get_rng_state()
    encoder = imagenet_encoder(name)
    assert torch.equal(torch.get_rng_state(), state)
    assert (encoder.trained, encoder.image_size, encoder.mean, encoder.std) == (True, 160, (0.5,) * 3, (0.5,) * 3)
    assert encoder.config.provenance["run"] == "timm:test_resnet.r160_in1k"
    images = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = resnet.forward_head(resnet.forward_features((images - 0.5) / 0.5), pre_logits=True)
        torch.testing.assert_close(encoder(images), expected)


def test_grey_images_get_the_features_of_the_same_images_in_colour(resnet):
    colour, grey = imagenet_encoder("test_resnet", 64), imagenet_encoder("test_resnet", 64, in_chans=1)
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    assert len(grey.mean) == 1
    assert grey.hash != colour.hash


def test_position_tables_are_interpolated_for_another_size(cache):
    torch.manual_seed(1)
    model = timm.create_model("test_vit")
    save_file(model.state_dict(), put(cache, "timm/test_vit.r160_in1k", "model.safetensors"))
    encoder = imagenet_encoder("test_vit", 32)
    assert encoder.backbone.body.pos_embed.shape[1] < model.pos_embed.shape[1]
    assert torch.equal(encoder.backbone.body.blocks[0].mlp.fc1.weight, model.blocks[0].mlp.fc1.weight)
    with pytest.raises(UserError, match="Image sizes that work"):
        imagenet_encoder("test_vit", 33)


def test_unknown_names_get_the_nearest(cache):
    with pytest.raises(UserError, match=r"resnet50\.a1_in1k"):
        imagenet_encoder("resnet50.a1_in2k")


def test_offline_it_says_what_is_looked_for_where_and_how_to_get_it(cache):
    with pytest.raises(UserError) as refused:
        imagenet_encoder("resnet18")
    for part in ("resnet18.a1_in1k", str(cache), "hf download timm/resnet18.a1_in1k model.safetensors"):
        assert part in str(refused.value)


def test_a_pickle_is_never_loaded(cache, monkeypatch):
    put(cache, "timm/test_resnet.r160_in1k", "pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("unpickled"))
    with pytest.raises(UserError, match=r"model\.safetensors"):
        imagenet_encoder("test_resnet")
    pickled = next(name for name in timm.list_pretrained() if not timm.get_pretrained_cfg(name).hf_hub_id)
    with pytest.raises(UserError, match="pickle"):
        imagenet_encoder(pickled)


def test_damaged_weights_are_named(cache):
    file = put(cache, "timm/test_resnet.r160_in1k", "model.safetensors")
    file.write_bytes(b"not safetensors")
    with pytest.raises(UserError, match=str(file)):
        imagenet_encoder("test_resnet")
