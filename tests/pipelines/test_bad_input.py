"""What users get wrong: each is refused with status 2, by a message that says what to do, or taken well."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabel import files
from fewlabel.__main__ import main


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def jpeg(image):
    stream = io.BytesIO()
    image.save(stream, "JPEG")
    return stream.getvalue()


def bomb(side):
    """A PNG of a few hundred bytes that claims `side` x `side` pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


BAD_FILES = {
    "notes.jpg": (b"Not a picture.", "not an image"),
    "cut.jpg": (jpeg(Image.fromarray(noise(64, 64, 3)))[:2500], "truncated"),
    "bomb.png": (bomb(30_000), "100 megapixels"),
}


def animation():
    frames = [Image.fromarray(np.full((16, 16), grey, np.uint8)) for grey in (0, 120, 240)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def encoded(image, kind):
    stream = io.BytesIO()
    image.save(stream, kind, **({"transparency": 3} if image.mode == "P" else {}))
    return stream.getvalue()


ODD_FILES = {
    "cmyk.jpg": lambda: jpeg(Image.fromarray(noise(16, 16, 4), "CMYK")),
    "palette.png": lambda: encoded(Image.fromarray(noise(16, 16, 3)).quantize(16), "PNG"),
    "one-bit.png": lambda: encoded(Image.fromarray(noise(16, 16)).convert("1"), "PNG"),
    "animated.gif": animation,
}


def record(run):
    return json.loads((run / "config.json").read_text(encoding="utf-8"))


def test_no_such_path(refused, tmp_path):
    message = refused("pretrain", "--data", tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message
    assert "A source is a folder" in message


@pytest.mark.parametrize(("content", "said"), [({}, "it is empty"), ({"a.txt": b"text"}, "only 1 .txt")])
def test_a_folder_without_images(refused, tmp_path, content, said):
    for name, value in content.items():
        (tmp_path / name).write_bytes(value)
    message = refused("pretrain", "--data", tmp_path)
    assert str(tmp_path) in message
    assert said in message
    assert ".png" in message


def test_a_folder_with_one_image(refused, write_images, tmp_path):
    message = refused("pretrain", "--data", write_images(tmp_path / "one", 1))
    assert "one has 1 readable image;" in message
    assert "needs at least" in message


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_alone(refused, tmp_path, name):
    content, reason = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    message = refused("pretrain", "--data", tmp_path)
    # The pixels of a truncated file are looked at later than its header, and one image is too few anyway.
    assert (name in message and reason in message) or (name == "cut.jpg" and "1 readable image;" in message)


def test_too_many_bad_files(refused, write_images, tmp_path):
    photos = write_images(tmp_path / "photos", 10)
    (photos / "notes.jpg").write_bytes(b"Not a picture.")
    message = refused("pretrain", "--data", photos)
    assert "1 of 11" in message
    assert "notes.jpg" in message
    assert "--max-bad-share" in message


def test_bad_files_among_good_ones_are_named_in_the_record_and_left_out(pretrain, write_images, tmp_path, capfd):
    photos = write_images(tmp_path / "photos", 80)
    for name, (content, _) in BAD_FILES.items():
        (photos / name).write_bytes(content)
    assert (
        pretrain("--data", photos, "--max-steps", 1, "--val-share", 0, "--test-share", 0, "--out", tmp_path / "run")
        == 0
    )
    named = {bad["id"]: bad["reason"] for bad in record(tmp_path / "run")["source"]["bad_images"]}
    assert named.keys() == BAD_FILES.keys()
    for name, (content, reason) in BAD_FILES.items():
        assert reason in named[name]
        assert (photos / name).read_bytes() == content
    assert "cut.jpg" in capfd.readouterr().err


def test_odd_but_whole_images_are_trained_on(pretrain, tmp_path):
    for name, make in ODD_FILES.items():
        for number in range(8):
            (tmp_path / "odd" / f"{number}").mkdir(parents=True, exist_ok=True)
            (tmp_path / "odd" / f"{number}" / name).write_bytes(make())
    assert pretrain("--data", tmp_path / "odd", "--max-steps", 1, "--out", tmp_path / "run") == 0
    source = record(tmp_path / "run")["source"]
    assert source["bad_images"] == []
    assert sum(source["images"].values()) == 32


def test_a_batch_larger_than_the_set(refused, write_images, tmp_path):
    message = refused("pretrain", "--data", write_images(tmp_path / "few", 20), "--batch-size", 64)
    assert "64" in message
    assert "--batch-size" in message


def test_an_image_size_that_the_backbone_cannot_take(refused):
    message = refused("pretrain", "--backbone", "vit", "--image-size", 30)
    assert "30" in message
    assert any(size in message for size in ("28", "32"))


def test_an_unknown_backbone(refused):
    message = refused("pretrain", "--backbone", "resnet5")
    assert "'resnet5'" in message
    assert "resnet50" in message
    assert "fewlabel backbones" in message


@pytest.mark.parametrize("command", ["pretrain", "views"])
def test_an_unknown_preset_is_refused_before_any_image_is_read(refused, command):
    message = refused(command, "--views", "xrays", "--data", "nowhere")
    assert "xray" in message
    assert "natural" in message


@pytest.mark.parametrize(
    ("option", "value"),
    [("--lr", "nan"), ("--temperature", "0"), ("--epochs", "0"), ("--batch-size", "1"), ("--val-share", "1.5")],
)
def test_a_value_out_of_range(refused, option, value):
    message = refused("pretrain", option, value)
    assert option in message
    assert "must be" in message


@pytest.mark.parametrize("arguments", [("--temprature", "0.2"), ("--epochs", "many"), ("stray",)])
def test_what_is_no_option(arguments, capfd):
    with pytest.raises(SystemExit) as stopped:
        main(["pretrain", *arguments])
    assert stopped.value.code == 2
    shown = capfd.readouterr()
    assert "Traceback" not in shown.err + shown.out


@pytest.mark.parametrize("content", ['{"command": "pretrain", "config": {"training": {"epochs": "three"}}}', "{"])
def test_a_damaged_configuration(refused, tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert str(tmp_path / "config.json") in refused("pretrain", "--config", tmp_path / "config.json")


def test_a_full_disk_while_checkpointing(refused, tiny, tmp_path, monkeypatch):
    """The second checkpoint doesn't fit: the first stays whole, nothing half-written stays, and it can go on."""
    run = tmp_path / "run"
    synced = files._sync

    def full(path: Path) -> None:
        if "step-00000004" in path.name:
            raise OSError(28, "No space left on device")
        synced(path)

    options = ("--max-steps", 6, "--checkpoint-steps", 2, "--out", run)
    with monkeypatch.context() as patch:
        patch.setattr(files, "_sync", full)
        message = refused("pretrain", *tiny, *options)
    assert "No space left" in message
    assert "Free some space" in message
    assert [file.name for file in (run / "checkpoints").iterdir()] == ["step-00000002.safetensors"]
    assert main(["pretrain", "--resume", str(run)]) == 0
    assert (run / "result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--backbone", "vit", "--backbone-option", "stem=3"), "vit has no option 'stem'. Its options: patch_size"),
        (("--backbone", "vit", "--backbone-option", "pool"), "write NAME=VALUE"),
        (("--backbone", "vit", "--backbone-option", "heads=5", "--image-size", "32"), "5 heads don't divide the width"),
        (("--backbone", "m2tr", "--image-size", "28"), "The nearest that work: 32 px"),
        (
            ("--backbone", "resnet18", "--scale-depth", "0.2", "--image-size", "32"),
            "rounds a stage of 2 blocks to nothing",
        ),
        (("--scale-phi", "40"), "multiplier is"),
        (("--backbone", "timm/resnet50", "--scale-width", "2", "--image-size", "64"), "only the resolution"),
        (("--backbone", "timm/resnt50"), "timm/resnet50"),
    ],
)
def test_a_form_that_a_backbone_can_not_have(refused, arguments, hint):
    assert hint in refused("pretrain", *arguments)


def test_options_without_a_backbone_to_describe(refused):
    assert "name it" in refused("backbones", "--scale-phi", "1")
