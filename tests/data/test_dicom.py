"""DICOM files against the standard's own formulas, Pillow's decoders and what was written."""

import io
import struct
import zlib
from pathlib import Path

import gdcm
import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from fewlabel.data.decode import DecodeError, decode, read_header
from fewlabel.data.dicom_tags import read_tags

SMOOTH = (np.add.outer(np.arange(48), np.arange(64)) * 36).astype(np.uint16)
"""12 bits, 0 to 3960, which even lossy codecs keep nearly as it is."""


def pixels_of(path: Path, **options: object) -> np.ndarray:
    with path.open("rb") as stream:
        header = read_header(stream)
        pixels = decode(stream, **options)
    assert (header.height, header.width, header.channels) == pixels.shape
    assert header.bits == 8 * pixels.dtype.itemsize
    return pixels


def transcoded(path: Path, syntax: int) -> Path:
    """A copy of a file, its pixels encoded anew by GDCM."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    target = path.with_name("encoded.dcm")
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1 as it is written, to 16 bits."""
    shown = np.empty(values.shape)
    for place, x in np.ndenumerate(values.astype(float)):
        if x <= centre - 0.5 - (width - 1) / 2:
            shown[place] = 0
        elif x > centre - 0.5 + (width - 1) / 2:
            shown[place] = 65535
        else:
            shown[place] = ((x - (centre - 0.5)) / (width - 1) + 0.5) * 65535
    return np.rint(shown).astype(np.uint16)


def test_window_of_the_file_after_rescaling(tmp_path, write_dicom):
    stored = np.arange(-1200, 1200, 10, dtype=np.int16).reshape(12, 20)
    tags = {"RescaleSlope": 2, "RescaleIntercept": -24, "WindowCenter": 40, "WindowWidth": 400}
    shown = pixels_of(write_dicom(tmp_path / "a.dcm", stored, **tags))
    np.testing.assert_array_equal(shown[:, :, 0], linear(stored.astype(int) * 2 - 24, 40, 400))


def test_first_of_several_windows_and_numbers_instead(tmp_path, write_dicom):
    tags = {"WindowCenter": [1000, 3000], "WindowWidth": [500, 100], "BitsStored": 12}
    path = write_dicom(tmp_path / "a.dcm", SMOOTH, **tags)
    np.testing.assert_array_equal(pixels_of(path)[:, :, 0], linear(SMOOTH, 1000, 500))
    np.testing.assert_array_equal(pixels_of(path, window="3000,100")[:, :, 0], linear(SMOOTH, 3000, 100))


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_other_functions_of_a_window(tmp_path, write_dicom, function):
    path = write_dicom(tmp_path / "a.dcm", SMOOTH, WindowCenter=2000, WindowWidth=1000, VOILUTFunction=function)
    values = SMOOTH.astype(float)
    share = (values - 1500) / 1000 if function == "LINEAR_EXACT" else 1 / (1 + np.exp(-4 * (values - 2000) / 1000))
    np.testing.assert_array_equal(pixels_of(path)[:, :, 0], np.rint(np.clip(share, 0, 1) * 65535))


@pytest.mark.parametrize("width", [0, -5, "", [10, 20]])
def test_a_window_that_makes_no_sense_counts_as_none(tmp_path, write_dicom, width):
    centre = "" if width == [10, 20] else 1000
    path = write_dicom(tmp_path / "a.dcm", SMOOTH, WindowCenter=centre, WindowWidth=width)
    np.testing.assert_array_equal(pixels_of(path), pixels_of(path, window="percentile"))


def test_without_a_window_percentiles_or_the_stored_range(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", SMOOTH, BitsStored=12)
    low, high = np.percentile(SMOOTH, (0.5, 99.5))
    share = np.clip((SMOOTH - low) / (high - low), 0, 1)
    np.testing.assert_array_equal(pixels_of(path)[:, :, 0], np.rint(share * 65535))
    np.testing.assert_array_equal(pixels_of(path, window="full")[:, :, 0], np.rint(SMOOTH / 4095 * 65535))
    eight = write_dicom(tmp_path / "b.dcm", np.full((4, 4), 77, np.uint8))
    np.testing.assert_array_equal(pixels_of(eight), np.full((4, 4, 1), 77))


def test_signed_pixels_over_their_whole_range(tmp_path, write_dicom):
    stored = np.array([[-2048, -1], [0, 2047]], dtype=np.int16)
    shown = pixels_of(write_dicom(tmp_path / "a.dcm", stored, BitsStored=12), window="full")
    np.testing.assert_array_equal(shown[:, :, 0], np.rint((stored.astype(int) + 2048) / 4095 * 65535))


def test_monochrome1_is_inverted_and_padding_is_black(tmp_path, write_dicom):
    stored = np.array([[0, 4095], [1000, 4095]], dtype=np.uint16)
    plain = write_dicom(tmp_path / "a.dcm", stored, BitsStored=12, PhotometricInterpretation="MONOCHROME1")
    expected = 65535 - np.rint(stored / 4095 * 65535)
    np.testing.assert_array_equal(pixels_of(plain, window="full")[:, :, 0], expected)
    tags = {"BitsStored": 12, "PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0}
    padded = write_dicom(tmp_path / "b.dcm", stored, **tags)
    expected[0, 0] = 0
    np.testing.assert_array_equal(pixels_of(padded, window="full")[:, :, 0], expected)


def test_padding_is_no_part_of_percentiles(tmp_path, write_dicom):
    stored = np.full((40, 40), -2000, dtype=np.int16)
    stored[10:30, 10:30] = np.arange(400).reshape(20, 20)
    # Written as the unsigned number of the same bits, as some scanners do.
    tags = {"PixelPaddingValue": -2000}
    shown = pixels_of(write_dicom(tmp_path / "a.dcm", stored, **tags))
    assert shown[11, 11] > 0
    assert shown[29, 29] == 65535
    assert (shown[:10] == 0).all()
    low, high = np.percentile(np.arange(400), (0.5, 99.5))
    assert shown[20, 20, 0] == np.rint((210 - low) / (high - low) * 65535)


def test_tables_instead_of_slopes_and_windows(tmp_path, write_dicom):
    def table(first: int, entries: list[int]) -> Sequence:
        item = Dataset()
        item.add_new("LUTDescriptor", "SS", [len(entries), first, 16])
        item.add_new("LUTData", "OW", np.array(entries, np.uint16).tobytes())
        item.ModalityLUTType = "US"
        return Sequence([item])

    stored = np.array([[0, 1], [2, 3]], dtype=np.uint8)
    modality, shown = [0, 100, 50, 200], np.linspace(65535, 0, 201).astype(int).tolist()
    path = write_dicom(
        tmp_path / "a.dcm", stored, ModalityLUTSequence=table(0, modality), VOILUTSequence=table(0, shown)
    )
    expected = np.array(shown)[np.array(modality)[stored]]
    np.testing.assert_array_equal(pixels_of(path)[:, :, 0], np.rint(expected / 257))


LOSSLESS = ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"]


@pytest.mark.parametrize("depth", [8, 12, 16])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_transfer_syntaxes_give_back_what_went_in(tmp_path, write_dicom, syntax, depth):
    rough = np.random.default_rng(0).integers(0, 2**depth, (33, 48)).astype(np.uint8 if depth == 8 else np.uint16)
    path = write_dicom(tmp_path / "a.dcm", rough, BitsStored=depth)
    encoded = transcoded(path, getattr(gdcm.TransferSyntax, syntax))
    assert pydicom.dcmread(encoded).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(pixels_of(encoded, window="full"), pixels_of(path, window="full"))


@pytest.mark.parametrize("syntax", ["JPEGBaselineProcess1", "JPEGLSNearLossless", "JPEG2000"])
def test_lossy_transfer_syntaxes_come_near(tmp_path, write_dicom, syntax):
    smooth = (SMOOTH // 16).astype(np.uint8)
    path = write_dicom(tmp_path / "a.dcm", smooth)
    shown = pixels_of(transcoded(path, getattr(gdcm.TransferSyntax, syntax)))
    assert np.abs(shown[:, :, 0].astype(int) - smooth).max() <= 6


@pytest.mark.parametrize("syntax", [pydicom.uid.JPEGExtended12Bit, pydicom.uid.HTJ2KLossless])
def test_transfer_syntaxes_that_gdcm_does_not_write(tmp_path, write_dicom, syntax):
    if syntax == pydicom.uid.HTJ2KLossless:
        encoded = imagecodecs.htj2k_encode(SMOOTH, reversible=True)
    else:
        encoded = imagecodecs.jpeg8_encode(SMOOTH, level=95, bitspersample=12)
    path = write_dicom(tmp_path / "a.dcm", SMOOTH, BitsStored=12)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([encoded])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    shown = pixels_of(path, window="full")[:, :, 0] / 65535 * 4095
    assert np.abs(shown - SMOOTH).max() <= (0.1 if syntax == pydicom.uid.HTJ2KLossless else 4)


def test_a_frame_that_claims_more_than_the_file_is_refused(tmp_path, write_dicom):
    path = transcoded(
        write_dicom(tmp_path / "a.dcm", SMOOTH, BitsStored=12), gdcm.TransferSyntax.JPEGLosslessProcess14_1
    )
    content = bytearray(path.read_bytes())
    place = content.index(b"\xff\xc3")
    content[place + 5 : place + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(DecodeError, match="another size than the file says"):
        decode(bytes(content))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"])
def test_plain_transfer_syntaxes(tmp_path, write_dicom, syntax):
    if syntax.endswith(".2.2"):
        pixels, tags = (SMOOTH // 16).astype(np.uint8), {}
    else:
        pixels, tags = SMOOTH, {"BitsStored": 12}
    path = write_dicom(tmp_path / "a.dcm", pixels, syntax, **tags)
    white = 255 if pixels.dtype == np.uint8 else 4095
    expected = np.rint(pixels / white * (65535 if white == 4095 else 255))
    np.testing.assert_array_equal(pixels_of(path, window="full")[:, :, 0], expected)


def test_colour_jpeg_equals_pillow(tmp_path, write_dicom):
    colours = np.stack([SMOOTH // 16, SMOOTH[::-1] // 16, SMOOTH[:, ::-1] // 16], axis=2).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(colours).save(stream, "JPEG", quality=95, subsampling=0)
    path = write_dicom(tmp_path / "a.dcm", colours)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    reference = np.asarray(Image.open(stream)).astype(int)
    assert np.abs(pixels_of(path).astype(int) - reference).max() <= 3
    rgb = pixels_of(write_dicom(tmp_path / "b.dcm", colours))
    np.testing.assert_array_equal(rgb, colours)


def test_native_ybr_becomes_rgb(tmp_path, write_dicom):
    ybr = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).convert("YCbCr")
    path = write_dicom(tmp_path / "a.dcm", np.asarray(ybr), PhotometricInterpretation="YBR_FULL")
    assert np.abs(pixels_of(path).astype(int) - np.asarray(ybr.convert("RGB"))).max() <= 2


def test_palette(tmp_path, write_dicom):
    stored = np.arange(16, dtype=np.uint8).reshape(4, 4)
    scales = np.random.default_rng(0).integers(0, 65536, (3, 16)).astype(np.uint16)
    tags = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, scale in zip(("Red", "Green", "Blue"), scales, strict=True):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [16, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = scale.tobytes()
    shown = pixels_of(write_dicom(tmp_path / "a.dcm", stored, **tags))
    np.testing.assert_array_equal(shown, np.rint(scales.T[stored] / 257))


def test_one_bit_a_pixel(tmp_path, write_dicom):
    bits = np.random.default_rng(0).integers(0, 2, (8, 8), dtype=np.uint8)
    path = write_dicom(tmp_path / "a.dcm", bits, BitsStored=1)
    dataset = pydicom.dcmread(path)
    dataset.BitsAllocated = 1
    dataset.PixelData = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    dataset.save_as(path)
    np.testing.assert_array_equal(pixels_of(path)[:, :, 0], bits * 255)


@pytest.mark.parametrize("compressed", [False, True])
def test_frames_are_read_one_by_one(tmp_path, write_dicom, compressed):
    frames = np.random.default_rng(0).integers(0, 256, (3, 10, 12), dtype=np.uint8)
    path = write_dicom(tmp_path / "a.dcm", frames)
    if compressed:
        path = transcoded(path, gdcm.TransferSyntax.JPEGLSLossless)
    with path.open("rb") as stream:
        assert read_tags(stream).frames == 3
    for number, frame in enumerate(frames, start=1):
        np.testing.assert_array_equal(pixels_of(path, frame=number)[:, :, 0], frame)
    with pytest.raises(DecodeError, match="no frame 4: the file has 3"):
        pixels_of(path, frame=4)


def test_windows_of_single_frames(tmp_path, write_dicom):
    frames = np.stack([SMOOTH, SMOOTH])

    def group(**tags: object) -> Dataset:
        group, window = Dataset(), Dataset()
        for name, value in tags.items():
            setattr(window, name, value)
        group.FrameVOILUTSequence = Sequence([window])
        return group

    rescaled, rescale = Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1000
    rescaled.PixelValueTransformationSequence = Sequence([rescale])
    path = write_dicom(
        tmp_path / "a.dcm",
        frames,
        SharedFunctionalGroupsSequence=Sequence([rescaled]),
        PerFrameFunctionalGroupsSequence=Sequence(
            [group(WindowCenter=0, WindowWidth=100), group(WindowCenter=500, WindowWidth=1000)]
        ),
    )
    values = SMOOTH.astype(int) - 1000
    np.testing.assert_array_equal(pixels_of(path, frame=1)[:, :, 0], linear(values, 0, 100))
    np.testing.assert_array_equal(pixels_of(path, frame=2)[:, :, 0], linear(values, 500, 1000))


def test_a_file_without_preamble(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", SMOOTH, BitsStored=12)
    dataset = pydicom.dcmread(path)
    bare = tmp_path / "bare"
    stream = io.BytesIO()
    pydicom.filewriter.write_dataset(file := pydicom.filebase.DicomFileLike(stream), _implicit(file, dataset))
    bare.write_bytes(stream.getvalue())
    np.testing.assert_array_equal(pixels_of(bare), pixels_of(path))


def _implicit(file: object, dataset: Dataset) -> Dataset:
    file.is_implicit_VR, file.is_little_endian = True, True
    return dataset


def test_tags_that_name_nobody(tmp_path, write_dicom):
    path = write_dicom(
        tmp_path / "a.dcm",
        SMOOTH,
        PatientID=" 17 ",
        IssuerOfPatientID="A",
        StudyInstanceUID="1.2.3",
        Modality="CT",
        ImageLaterality="L",
        Laterality="R",
        ViewPosition="AP",
        BodyPartExamined="Mrs Smith's",
        PixelSpacing=[0.5, 0.25],
    )
    with path.open("rb") as stream:
        tags = read_tags(stream)
    assert tags.identities == {"patient": ("17", "A"), "study": ("1.2.3",), "series": None}
    assert tags.codes == {"modality": "CT", "laterality": "L", "view_position": "AP", "body_part": None}
    assert tags.spacing == (0.5, 0.25)


def test_a_report_without_an_image_is_named(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", SMOOTH)
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.BasicTextSRStorage
    for tag in ("PixelData", "Rows", "Columns"):
        delattr(dataset, tag)
    dataset.save_as(path)
    with pytest.raises(DecodeError, match=r"a DICOM file without an image \(Basic Text SR Storage\)"):
        pixels_of(path)


@pytest.mark.parametrize(
    "syntax", [None, "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"]
)
def test_truncated_files_are_refused_and_quote_nothing(tmp_path, write_dicom, syntax):
    rough = np.random.default_rng(0).integers(0, 65536, (40, 40), dtype=np.uint16)
    path = write_dicom(tmp_path / "a.dcm", rough, PatientName="Secret^Name", PatientID="Secret")
    if syntax is not None:
        path = transcoded(path, getattr(gdcm.TransferSyntax, syntax))
    content = path.read_bytes()
    for length in (133, 300, len(content) // 2, len(content) - 40):
        with pytest.raises(DecodeError) as refused:
            decode(content[:length])
        assert "Secret" not in str(refused.value)
    if syntax in (None, "JPEGLosslessProcess14_1", "JPEGLSLossless"):
        assert str(refused.value).startswith("truncated DICOM: ")


def test_bombs_are_refused_from_their_header(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", SMOOTH)
    dataset = pydicom.dcmread(path)
    dataset.Rows = dataset.Columns = 60_000
    dataset.save_as(path)
    for read in (read_header, decode):
        with path.open("rb") as stream, pytest.raises(DecodeError, match="60,000 x 60,000 pixels"):
            read(stream)
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 48, 64, 2**31 - 1
    dataset.save_as(path)
    with path.open("rb") as stream:
        assert read_tags(stream).frames == 1
    with path.open("rb") as stream, pytest.raises(DecodeError, match="claims 2,147,483,647 frames"):
        read_header(stream)


def test_damage_anywhere_raises_nothing_else(tmp_path, write_dicom):
    generator = np.random.default_rng(0)
    path = write_dicom(tmp_path / "a.dcm", SMOOTH, BitsStored=12, WindowCenter=1000, WindowWidth=500)
    for content in (path.read_bytes(), transcoded(path, gdcm.TransferSyntax.JPEGLosslessProcess14_1).read_bytes()):
        for _ in range(150):
            damaged = bytearray(content)
            for place in generator.integers(132, len(content), 4):
                damaged[place] = generator.integers(256)
            try:
                assert decode(bytes(damaged)).ndim == 3
            except DecodeError:
                continue


def test_a_deflated_bomb_is_refused(tmp_path, write_dicom, monkeypatch):
    monkeypatch.setattr("fewlabel.data.dicom._MAX_INFLATED", 2**20)
    path = write_dicom(tmp_path / "a.dcm", SMOOTH, "1.2.840.10008.1.2.1.99")
    content = path.read_bytes()
    start = 144 + struct.unpack("<I", content[140:144])[0]
    packer = zlib.compressobj(9, wbits=-15)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(40)) + packer.flush()
    with pytest.raises(DecodeError, match="unpacks to more than the 1 MiB allowed"):
        decode(content[:start] + packed)
