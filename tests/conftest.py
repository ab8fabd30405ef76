"""What all rooms' tests share: Ctrl-C that is heard, a browser for the tests of pages, and DICOM files made here."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

REQUIRED = "FEWLABEL_BROWSER_REQUIRED"
"""Set where a browser must be there, so that its absence can't pass for success."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So begins what a shell starts in the background, and what it starts in turn; tests send Ctrl-C to that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; a module is skipped where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)("no chromium on the PATH: apt-get install chromium")
    quiet = ("background-networking", "component-update", "sync", "extensions")
    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--no-first-run", *(f"--disable-{name}" for name in quiet)],
        )
        yield started
        started.close()


@pytest.fixture(scope="session")
def write_dicom():
    """Write `pixels` (H, W), (frames, H, W) or (H, W, 3) as a DICOM file that says `tags` (by keyword) of itself."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    def write(path: Path, pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **tags: object) -> Path:
        dataset = pydicom.Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, pydicom.uid.generate_uid()
        colour = pixels.ndim == 3 and pixels.shape[2] == 3
        frames = pixels.shape[0] if pixels.ndim == 3 and not colour else 1
        bits = 8 * pixels.dtype.itemsize
        dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
        if colour:
            dataset.PlanarConfiguration = 0
        if frames > 1:
            dataset.NumberOfFrames = frames
        dataset.BitsAllocated, dataset.BitsStored = bits, tags.pop("BitsStored", bits)
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
        for name, value in tags.items():
            setattr(dataset, name, value)
        content = pixels.tobytes()
        dataset.PixelData = content + b"\0" * (len(content) % 2)
        dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write
