import io
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fewlabel.errors import UserError
from fewlabel.retrieval import Entry
from fewlabel.retrieval.app.markup import Card, card_of_hit, cards, data_uri, message
from fewlabel.retrieval.app.run_markup import run_markup, runs_table
from fewlabel.retrieval.app.runs_tab import report_of, run_named
from fewlabel.retrieval.index import Hit
from fewlabel.tracking.catalogue import list_runs
from fewlabel.tracking.run import Run

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{value}}${1}"


class Elements(HTMLParser):
    """What a browser makes of it: elements with attributes, and the text."""

    def __init__(self, markup):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(markup)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_names_and_labels_are_text_whatever_they_hold():
    seen = Elements(cards([Card(3, f"folder/{HOSTILE}", HOSTILE, "train", 1, 0.5)], "stamp") + message(HOSTILE))
    assert [image["src"] for image in seen.all("img")] == ["thumbnail/3?stamp"]
    assert seen.all("button")[0]["title"] == f"folder/{HOSTILE}"
    # As label, as name, and in the message.
    assert seen.text.count(HOSTILE) == 3


def test_a_neighbour_says_what_it_is():
    entry = Entry("a", "/photos/cat/1.jpg", ("cat", "dog"), "val", None, "00", 12)
    seen = Elements(cards([card_of_hit(Hit(2, 0.98765, entry, (entry,)))], "7"))
    (button,), (image,) = seen.all("button"), seen.all("img")
    assert button["data-key"] == "12"
    assert button["aria-label"] == "2. similarity 0.988, label cat, dog, val, /photos/cat/1.jpg: search from it"
    assert image["src"] == "thumbnail/12?7"
    assert seen.text == "20.988cat, dogval · +1 copy1.jpg"


def test_a_picture_says_which_kind_it_is():
    for kind in ("PNG", "JPEG"):
        stream = io.BytesIO()
        Image.new("L", (8, 8)).save(stream, kind)
        assert data_uri(stream.getvalue()).startswith(f"data:image/{kind.lower()};base64,")


@pytest.fixture
def runs(tmp_path):
    root = tmp_path / "runs"
    with Run.create(
        "pretrain",
        {"backbone": "vit"},
        out=root / HOSTILE,
        slug="",
        source={"name": HOSTILE, "data": "digits", "fingerprint": "0"},
        project="test",
    ) as run:
        for step in (1, 2, 3):
            run.log(step, {"loss": 3.0 / step, "accuracy": math.nan if step == 2 else 0.5})
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(run.directory / "views.png")
        (run.directory / "broken.png").write_bytes(b"no image")
        (run.directory / "report.html").write_text("<p>the report</p>")
        run.finish({"accuracy": {"mean": 0.5, "low": 0.25, "high": 0.75}, "curve": [{"a": 1}]})
    return root


def test_a_run_is_shown_with_its_figures_curves_report_and_pictures(runs):
    (record,) = list_runs(runs)
    listed, seen = Elements(runs_table([record])), Elements(run_markup(record))
    assert not listed.all("img")
    assert listed.all("button")[0]["data-key"] == record.directory.name
    assert "0.500 (0.250 to 0.750)" in seen.text
    drawn = [image["alt"] for image in seen.all("img")]
    assert drawn == ["loss from 3 at step 1 to 1 at step 3", "accuracy from 0.5 at step 1 to 0.5 at step 3", "views"]
    (frame,) = seen.all("iframe")
    assert frame["sandbox"] in ("", None)
    assert "/" not in frame["src"].removeprefix("report/")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../runs", "/etc/passwd", "one/../../secret", "%2e%2e", "\x00", "absent"]
)
def test_only_a_listed_run_is_opened(runs, name):
    (runs / "secret").mkdir()
    (runs.parent / "report.html").write_text("secret")
    (runs / "secret/report.html").write_text("secret")
    with pytest.raises(UserError, match="That run is not there"):
        run_named(runs, name)
    for asked in (name, "secret"):
        with pytest.raises(UserError, match="That run is not there"):
            report_of(runs, asked)


def test_the_report_of_a_listed_run_is_given(runs):
    (record,) = list_runs(runs)
    assert report_of(runs, record.directory.name) == b"<p>the report</p>"
    (record.directory / "report.html").unlink()
    assert report_of(runs, record.directory.name) is None
