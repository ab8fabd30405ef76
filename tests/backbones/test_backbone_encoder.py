"""The encoder directory: what goes in comes out, and nothing else gets in."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import fewlabel
from fewlabel.backbones import create, load_encoder, save_encoder
from fewlabel.errors import UserError

PROVENANCE = {
    "source": {"name": "digits", "fingerprint": "0123abcd"},
    "git_commit": "deadbeef",
    "metrics": {"knn_accuracy": {"mean": 0.91, "low": 0.88, "high": 0.94}, "loss": 1.25},
}


def _trained(name, channels=3, size=16, **options):
    """A backbone whose batch statistics are no longer those of a fresh one."""
    torch.manual_seed(0)
    backbone = create(name, image_size=size, in_chans=channels, **options)
    with torch.no_grad():
        backbone.train()(torch.rand(4, channels, size, size))
    return backbone


def _save(directory, backbone, **changes):
    channels = backbone.in_chans
    arguments = {"mean": [0.5] * channels, "std": [0.25] * channels, "bits": 8, "provenance": PROVENANCE}
    return save_encoder(directory, backbone, **{**arguments, **changes})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One encoder on disk, which tests may read and copy."""
    return _save(tmp_path_factory.mktemp("encoder") / "encoder", _trained("mobilenetv3_small_050"))


@pytest.fixture
def copied(saved, tmp_path):
    """A copy that a test may damage."""
    directory = tmp_path / "copied"
    directory.mkdir()
    for file in saved.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    return directory


@pytest.mark.parametrize(
    ("name", "channels", "options"),
    [
        ("resnet", 1, {}),
        ("resnet10t", 3, {"small_stem": False}),
        ("senet", 3, {}),
        ("mobilenet", 5, {}),
        ("efficientnet", 3, {"drop_path_rate": 0.2}),
        ("vit", 1, {"pool": "gap"}),
        ("timm/deit_tiny_patch16_224", 3, {}),
    ],
)
def test_what_is_loaded_gives_the_same_features_bit_for_bit(tmp_path, name, channels, options):
    size = 32 if name.startswith("timm/") else 16
    backbone = _trained(name, channels, size, **options).eval()
    backbone.arrange()
    encoder = load_encoder(_save(tmp_path / "encoder", backbone))
    images = torch.rand(2, channels, size, size)
    with torch.no_grad():
        assert torch.equal(encoder(images), backbone((images - 0.5) / 0.25))
    assert encoder.backbone.options == backbone.options
    assert (encoder.num_features, encoder.image_size) == (backbone.num_features, size)
    assert encoder.mean == (0.5,) * channels


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("resnet", 1, 16),
        ("resnet50d", 3, 16),
        ("resnetv2_18", 3, 16),
        ("seresnet18", 3, 72),
        ("mobilenetv3_large_100", 3, 16),
        ("efficientnet", 5, 16),
        ("vit", 3, 16),
        ("timm/swin_tiny_patch4_window7_224", 3, 32),
    ],
)
def test_plain_timm_loads_it_as_the_card_says(tmp_path, monkeypatch, name, channels, size):
    backbone = _trained(name, channels, size)
    directory = _save(tmp_path / "encoder", backbone)
    block = re.search(r"```python\n(import timm.*?)```", (directory / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(directory)
    scope = {}
    exec(block[1], scope)
    images = torch.rand(2, channels, size, size)
    with torch.no_grad():
        assert torch.equal(scope["model"](images), backbone.eval()(images))


def test_plain_timm_needs_no_more_than_the_configuration_where_there_is_no_small_stem(tmp_path):
    directory = _save(tmp_path / "encoder", _trained("vit"))
    call = json.loads((directory / "config.json").read_text())["timm_call"]
    assert (call["imports"], call["then"]) == (["timm"], [])
    assert call["model"].startswith("timm.create_model('vit_tiny_patch16_224', ")
    model = eval(call["model"], {"timm": timm})
    model.load_state_dict(load_file(directory / "model.safetensors"))


def test_an_encoder_of_before_there_were_scales_is_unscaled(copied):
    config = json.loads((copied / "config.json").read_text())
    assert config.pop("scale") == {"depth": 1.0, "width": 1.0, "resolution": 1.0}
    (copied / "config.json").write_text(json.dumps(config))
    assert load_encoder(copied).backbone.name == "mobilenetv3_small_050"


def test_the_package_exposes_it(saved):
    assert fewlabel.load_encoder(saved).backbone.name == "mobilenetv3_small_050"


def test_the_card_tells_where_it_comes_from(saved):
    card = (saved / "README.md").read_text()
    for fact in ("0123abcd", "deadbeef", "0.91 (0.88 to 0.94)", "1.25", "1,024 numbers", "16 x 16 px"):
        assert fact in card


def test_loading_leaves_the_random_state_alone(saved):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    load_encoder(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_hash_names_weights_and_preprocessing(saved, copied):
    assert load_encoder(copied).hash == load_encoder(saved).hash
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"mean": [0.4, 0.5, 0.5]}))
    assert load_encoder(copied).hash != load_encoder(saved).hash


def test_an_encoder_stays_in_eval_mode_and_takes_gradients(saved):
    encoder = load_encoder(saved)
    probe = torch.nn.Sequential(encoder, torch.nn.Linear(encoder.num_features, 2)).train()
    assert not any(module.training for module in encoder.modules())
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    probe(torch.rand(2, 3, 16, 16)).sum().backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in encoder.named_buffers())
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_the_files_hold_no_pickle_and_shared_weights_are_kept_apart(tmp_path):
    backbone = _trained("vit")
    backbone.body.blocks[1].mlp.fc1.weight = backbone.body.blocks[0].mlp.fc1.weight
    directory = _save(tmp_path / "encoder", backbone)
    assert {file.name for file in directory.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert len({file.stat().st_mode for file in directory.iterdir()}) == 1
    weights = load_file(directory / "model.safetensors")
    assert torch.equal(weights["blocks.1.mlp.fc1.weight"], weights["blocks.0.mlp.fc1.weight"])
    load_encoder(directory)


def test_an_encoder_is_replaced_and_anything_else_is_refused(tmp_path):
    directory = tmp_path / "encoder"
    directory.mkdir()
    _save(directory, _trained("resnet10t"))
    _save(directory, _trained("mobilenetv3_small_050"))
    assert load_encoder(directory).backbone.name == "mobilenetv3_small_050"
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"a cat")
    with pytest.raises(UserError, match="exists already"):
        _save(other, _trained("mobilenetv3_small_050"))
    assert (other / "cat.jpg").read_bytes() == b"a cat"


def test_a_write_that_fails_leaves_the_old_encoder(tmp_path, monkeypatch):
    directory = _save(tmp_path / "encoder", _trained("mobilenetv3_small_050"))
    before = load_encoder(directory).hash

    def full(self, *arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="No space left"):
        _save(directory, _trained("resnet10t"))
    monkeypatch.undo()
    assert load_encoder(directory).hash == before
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": [0.5]},
        {"std": [0.0] * 3},
        {"mean": [float("nan")] * 3},
        {"bits": 12},
        {"provenance": {"loss": float("nan")}},
    ],
)
def test_values_that_make_no_sense_are_not_written(tmp_path, changes):
    with pytest.raises(ValueError, match=r"must be|JSON"):
        _save(tmp_path / "encoder", _trained("mobilenetv3_small_050"), **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"format": 2}, "format 2"),
        ({"format": None}, "not written by Fewlabel"),
        ({"name": "resnet10t"}, "doesn't hold the weights of resnet10t"),
        ({"name": "mobilenetv3_smal_050"}, "nearest known: mobilenetv3_small_050"),
        ({"name": "timm/hf-hub:evil/model"}, "no architecture"),
        ({"name": ["resnet18"]}, "name is"),
        ({"image_size": 10**9}, "from 8 to 4096"),
        ({"image_size": True}, "image_size is True"),
        ({"in_chans": 4}, "mean must be 4"),
        ({"options": {"checkpoint_path": "/etc/passwd"}}, "no option"),
        ({"options": {"name": "vit"}}, "no option"),
        ({"options": {"image_size": 64}}, "no options"),
        ({"scale": {"depth": 1.0, "width": 1.0, "resolution": 2.0}}, "resolution of 1"),
        ({"scale": {"depth": 1.0}}, "scale must have"),
        ({"scale": {"depth": 10**9, "width": 1.0, "resolution": 1.0}}, "depth multiplier is 1000000000"),
        ({"scale": {"depth": 2.0, "width": 1.0, "resolution": 1.0}}, "doesn't hold the weights"),
        ({"mean": ["0.5"] * 3}, "expected numbers"),
        ({"mean": [float("inf")] * 3}, "finite"),
        ({"std": [0.0] * 3}, "std must be above 0"),
        ({"num_features": 5}, "states 5 features"),
        ({"provenance": None}, "provenance is None"),
    ],
)
def test_a_configuration_is_never_trusted(copied, changes, hint):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=hint):
        load_encoder(copied)


def test_a_giant_is_refused_before_it_takes_memory(copied):
    config = json.loads((copied / "config.json").read_text())
    giant = {"name": "vit", "options": {"patch_size": 1}, "image_size": 4096}
    (copied / "config.json").write_text(json.dumps(config | giant))
    with pytest.raises(UserError, match="doesn't hold the weights"):
        load_encoder(copied)


def test_missing_and_damaged_files_are_named(copied, tmp_path):
    with pytest.raises(UserError, match="no encoder directory"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no config\.json"):
        load_encoder(tmp_path)
    weights = copied / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        load_encoder(copied)
    weights.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(UserError, match="damaged"):
        load_encoder(copied)
    weights.unlink()
    with pytest.raises(UserError, match="missing"):
        load_encoder(copied)
    (copied / "config.json").write_text("{")
    with pytest.raises(UserError, match="JSON"):
        load_encoder(copied)


def test_a_missing_tensor_is_named(copied):
    tensors = load_file(copied / "model.safetensors")
    name = next(iter(tensors))
    del tensors[name]
    save_file(tensors, copied / "model.safetensors")
    with pytest.raises(UserError, match=re.escape(f"{name} is missing")):
        load_encoder(copied)
