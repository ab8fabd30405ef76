"""The page stands alone, shows what it was given, and takes nothing it was given for HTML."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from plotly.graph_objects import Figure, Scatter
from plotly.offline import get_plotlyjs

from fewlabel.tracking.report import Link, Page, Thumbnail, shown

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Elements with their attributes, and the text, of a page whose tags are all closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return "".join(self.texts)


def pixels_of(uri):
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (300, 150), "red").save(path, dpi=(150, 150))
    return path


def full_page(png):
    page = Page("A page", "of everything")
    page.section("First part")
    page.heading("A heading")
    page.paragraph("Said first.", lead=True)
    page.listing(["one", "two"])
    page.definitions({"Seed": "0"})
    page.table(["Method", "AUROC"], [["probe", {"mean": 0.931, "low": 0.902, "high": 0.955}]], "Figures")
    page.section("Second part")
    page.figure(png, "A caption", "what it shows")
    page.thumbnails([Thumbnail(np.zeros((1, 4, 4), np.uint8), ["id", "a line"])])
    return page


def test_the_page_refers_to_nothing_outside(png):
    read = Reader(full_page(png).html())
    assert not {tag for tag, _ in read.elements} & {"script", "link", "iframe", "object", "embed", "base", "video"}
    for _, attributes in read.elements:
        for name in ("src", "srcset", "href", "action", "data", "poster", "background"):
            assert attributes.get(name, "#").startswith(("data:image/png;base64,", "#"))
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    assert "url(" not in read.text
    assert "@import" not in read.text
    policy = next(
        meta["content"] for meta in read.all("meta") if "content" in meta and "default-src" in meta["content"]
    )
    assert policy.startswith("default-src 'none'")


def test_the_contents_lead_to_the_sections(png):
    page = full_page(png)
    page.section("First part")
    page.section("例")
    read = Reader(page.html())
    links = [attributes["href"] for attributes in read.all("a")]
    assert links == ["#first-part", "#second-part", "#first-part-2", "#section"]
    assert [attributes["id"] for attributes in read.all("h2")] == [link[1:] for link in links]


def test_what_is_given_is_text_and_never_html(png):
    nasty = '</title><script>alert("1")</script>&amp;\'"'
    page = Page(nasty, nasty)
    page.section(nasty)
    page.heading(nasty)
    page.paragraph(nasty)
    page.listing([nasty])
    page.definitions({nasty: nasty})
    page.table([nasty], [[nasty]], nasty)
    page.figure(png, nasty, nasty)
    page.thumbnails([Thumbnail(np.zeros((3, 4, 4), np.uint8), [nasty, nasty])])
    html = page.html()
    read = Reader(html)
    assert not read.all("script")
    assert read.text.count(nasty) == 2 + 1 + 2 + 4 + 2 + 3 + 2
    assert [image["alt"] for image in read.all("img")] == [nasty, f"{nasty} · {nasty}"]
    assert html.count("</title>") == 1


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        ({"mean": 0.931, "low": 0.902, "high": 0.9551}, False, "0.931 (0.902 to 0.955)"),
        ({"mean": 0.05, "low": -0.01, "high": 0.11}, True, "+0.050 (-0.010 to +0.110)"),
        (0.12345, False, "0.123"),
        (12345, True, "12,345"),
        ("0.5", True, "0.5"),
        (None, False, ""),
    ],
)
def test_cells_are_written_the_same_way_everywhere(value, signed, text):
    assert shown(value, signed=signed) == text
    page = Page("A page")
    page.table(["Column"], [[value]], "Caption", signed=signed)
    assert text in Reader(page.html()).text


def test_numbers_stand_to_the_right_and_words_to_the_left():
    page = Page("A page")
    page.table(["Name", "Count", "Share"], [["a", 1, None], ["b", 2, 0.5]], "Caption")
    read = Reader(page.html())
    assert [cell.get("class") for cell in read.all("th")] == [None, "number", "number"]
    assert [cell.get("class") for cell in read.all("td")] == [None, "number", "number"] * 2
    for cells in (["a"], ["a", 1, 2]):
        with pytest.raises(ValueError, match="expected 2 cells"):
            page.table(["Name", "Count"], [cells], "Caption")


def test_a_figure_is_the_picture_itself_at_its_own_size(png):
    (image,) = (
        attributes for attributes in Reader(full_page(png).html()).all("img") if attributes["alt"] == "what it shows"
    )
    assert image["width"] == "192"
    assert base64.b64decode(image["src"].partition(",")[2]) == png.read_bytes()


def thumbnail(pixels):
    page = Page("A page")
    page.thumbnails([Thumbnail(pixels, ["id"])])
    return pixels_of(Reader(page.html()).all("img")[0]["src"])


def test_small_images_are_enlarged_and_not_blurred():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    shown_pixels = thumbnail(pixels)
    assert shown_pixels.shape == (112, 112, 3)
    assert (shown_pixels == pixels.transpose(1, 2, 0).repeat(4, axis=0).repeat(4, axis=1)).all()


def test_grey_images_stay_grey_and_large_ones_are_reduced():
    assert (thumbnail(np.full((1, 96, 96), 40, np.uint8)) == np.full((96, 96), 40)).all()
    assert thumbnail(np.zeros((3, 224, 224), np.uint8)).shape == (192, 192, 3)


def test_twelve_bits_in_sixteen_are_not_black():
    pixels = np.tile(np.linspace(1000, 4095, 96).astype(np.uint16), (96, 1))[None]
    shown_pixels = thumbnail(pixels)
    assert (shown_pixels[0, 0], shown_pixels[0, -1]) == (0, 255)
    assert (np.diff(shown_pixels[0].astype(int)) >= 0).all()
    assert not thumbnail(np.full((1, 8, 8), 900, np.uint16)).any()


@pytest.mark.parametrize("pixels", [np.zeros((3, 8, 8)), np.zeros((8, 8), np.uint8), np.zeros((2, 8, 8), np.uint8)])
def test_other_arrays_are_refused(pixels):
    with pytest.raises(ValueError, match="expected"):
        thumbnail(pixels)


def test_writing_replaces_the_page_in_one_go(tmp_path, png):
    path = tmp_path / "page.html"
    path.write_text("old")
    page = full_page(png)
    assert page.write(path) == path
    assert path.read_text(encoding="utf-8") == page.html()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["page.html", "picture.png"]


def test_a_link_is_followed_only_by_its_reader_and_its_text_is_text():
    page = Page("A page")
    page.listing([Link("<b>one</b>", 'run/"><script>'), "two"])
    page.table(["run"], [[Link("3", "runs/3/")], [None]], "Runs")
    read = Reader(page.html())
    assert [one["href"] for one in read.all("a")] == ['run/"><script>', "runs/3/"]
    assert "<b>one</b>" in read.text
    assert read.all("script") == []
    # A link is text, and stands at the left.
    assert all("class" not in one for one in read.all("td"))


def test_a_gallery_shows_pictures_side_by_side(png):
    page = Page("A page")
    page.gallery([(png.read_bytes(), "first", "what it shows"), (png.read_bytes(), "second", "and this")])
    read = Reader(page.html())
    assert [one["alt"] for one in read.all("img")] == ["what it shows", "and this"]
    assert {one["width"] for one in read.all("img")} == {"192"}


def test_plots_bring_their_script_once_and_no_other_address():
    page = Page("A page")
    assert "script-src" not in page.html()
    for _ in range(2):
        page.plot(Figure(Scatter(x=[1, 2], y=[3, 4], text="</script><b>")), "A <caption>")
    html = page.html()
    assert "script-src 'unsafe-inline'\"" in html
    assert html.count(get_plotlyjs()) == 1
    rest = html.replace(get_plotlyjs(), "")
    assert "https://" not in rest
    assert "</script><b>" not in rest
    assert 'id="plot-1"' in rest
    assert 'id="plot-2"' in rest
    assert "A &lt;caption&gt;" in rest
