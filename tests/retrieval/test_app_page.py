"""The page as it is served, in a real browser and to whoever sends what no browser would."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

from fewlabel.retrieval import Index
from fewlabel.retrieval.app.server import UPLOAD_BYTES
from fewlabel.tracking.run import Run

REQUIRED = "FEWLABEL_BROWSER_REQUIRED"
"""Set where a browser must be there, so that its absence can't pass for success."""

WATCH = """
import sys

def write_down(event, arguments):
    if event == "socket.connect":
        with open({path!r}, "a") as file:
            print(arguments[1], file=file)

sys.addaudithook(write_down)
open({path!r}, "w").close()
"""
"""Python runs a module of this name at its start: here it writes down every address that the server turns to."""

HOSTILE = "odd {{value}} ${1} <b>.png"


@dataclass
class Served:
    """A `fewlabel app` that runs."""

    address: str
    process: subprocess.Popen
    photos: Path
    index: Path
    temporary: Path
    said: list[str]
    """Lines on standard error so far."""


@pytest.fixture(scope="module")
def served(tmp_path_factory, encoder, draw, read):
    root = tmp_path_factory.mktemp("served")
    photos = root / "photos"
    for split, count in (("train", 12), ("test", 4)):
        for label, first in (("across", 0), ("up", 50)):
            for number in range(count):
                draw(photos / split / label / f"{number}.png", first + number + 100 * (split == "test"))
    draw(photos / "train/up" / HOSTILE, 999)
    (root / "secret.png").write_bytes((photos / "train/up/0.png").read_bytes() + b"never to be served")
    index = Index.build(root / "index", encoder, read(photos)).directory
    with Run.create(
        "pretrain",
        {"backbone": "vit"},
        out=root / "runs" / "first",
        slug="",
        source={"name": "photos", "data": str(photos), "fingerprint": "0"},
        project="test",
    ) as run:
        for step in (1, 2, 3):
            run.log(step, {"loss": 3.0 / step})
        script = "<script>document.body.innerHTML = 'script ran'; top.postMessage('out', '*')</script>"
        (run.directory / "report.html").write_text(f"<p>what was found</p>{script}")
        run.finish({"accuracy": 0.5})
    watching = root / "watching"
    watching.mkdir()
    (watching / "sitecustomize.py").write_text(WATCH.format(path=str(root / "connections")))
    temporary = root / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "fewlabel", "app", "--index", index, "--port", "0", "--runs", root / "runs"]
    process = subprocess.Popen(
        list(map(str, command)),
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(watching)},
        stderr=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []
    ready = threading.Event()

    def listen():
        for line in process.stderr:
            said.append(line)
            if "Ctrl-C" in line:
                ready.set()
        ready.set()

    listening = threading.Thread(target=listen)
    listening.start()
    ready.wait(timeout=240)
    address = re.search(r"http://\S+/", "".join(said))
    if address is None:
        process.kill()
        pytest.fail(f"the page did not start: {said}")
    yield Served(address[0], process, photos, index, temporary, said)
    process.kill()
    process.wait()
    listening.join()
    process.stderr.close()


@pytest.fixture(scope="module")
def browser():
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


@pytest.fixture
def page(browser, served):
    """The page, open; afterwards it must have asked no other machine, and had no error."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(30_000)
    page = context.new_page()
    foreign, errors = [], []
    page.on("request", lambda request: foreign.append(request.url) if not at_home(request.url, served) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.goto(served.address)
    page.locator("#offered button").first.wait_for()
    yield page
    context.close()
    assert foreign == []
    assert [error for error in errors if "sandboxed" not in error] == []


def at_home(url, served):
    return url.startswith((served.address, "data:", "blob:"))


def wait_for_text(page, selector, pattern):
    page.wait_for_function(
        "([selector, pattern]) => new RegExp(pattern).test(document.querySelector(selector).innerText)",
        arg=[selector, pattern],
    )
    return page.locator(selector).inner_text()


def test_an_image_of_the_collection_leads_to_its_neighbours_and_they_to_theirs(page):
    page.locator("#offered button").first.click()
    told = wait_for_text(page, "#status", "nearest of")
    assert re.match(r"10 nearest of 33 images, in \d+ ms\. Labels: \d+ of '", told)
    found = page.locator("#results button")
    assert found.count() == 10
    similarities = [float(text) for text in page.locator("#results .similarity").all_inner_texts()]
    assert similarities == sorted(similarities, reverse=True)
    wanted = found.nth(2).get_attribute("data-key")
    found.nth(2).click()
    page.locator(f'#query img[src^="picture/{wanted}?"]').wait_for()
    page.wait_for_function(
        "key => ![...document.querySelectorAll('#results button')].some(button => button.dataset.key == key)",
        arg=wanted,
    )
    page.wait_for_function(
        "[...document.querySelectorAll('#query img, #results img')].every(image => image.naturalWidth == 16)"
    )


def test_filters_ask_again(page):
    page.locator("#offered button").first.click()
    wait_for_text(page, "#status", "^10 nearest")
    page.locator("#splits").get_by_label("test").check()
    wait_for_text(page, "#status", "^[78] nearest.*no more pass")
    assert {text.split(" ")[0] for text in page.locator("#results .place").all_inner_texts()} == {"test"}
    page.locator("#labels input").click()
    page.get_by_role("option", name="across").click()
    wait_for_text(page, "#status", "^[34] nearest")
    assert set(page.locator("#results .label").all_inner_texts()) == {"across"}
    page.locator("#labels input").press("Escape")
    page.locator("#splits").get_by_label("test").uncheck()
    page.locator("#count").get_by_label("5", exact=True).check()
    wait_for_text(page, "#status", "^5 nearest")


def test_an_image_from_outside_is_searched_and_not_kept(page, served):
    with page.expect_file_chooser() as chooser:
        page.locator("#drop input").press("Enter")
    chooser.value.set_files(served.photos / "train/up/3.png")
    wait_for_text(page, "#status", "nearest of")
    assert page.locator("#results button").first.get_attribute("title").endswith("train/up/3.png")
    assert page.locator("#results .similarity").first.inner_text() == "1.000"
    assert "Your image; it is not kept." in page.locator("#query").inner_text()
    assert [path.name for path in served.temporary.rglob("*.png")] == []


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_an_image_is_dropped_or_pasted_as_well(page, way):
    page.evaluate(
        """async way => {
            const data = new DataTransfer();
            data.items.add(new File([await (await fetch('thumbnail/0')).blob()], 'mine.png', {type: 'image/png'}));
            const [zone, event] = way == 'drop'
                ? [document.querySelector('#drop label'), new DragEvent('drop', {dataTransfer: data, bubbles: true})]
                : [document.body, new ClipboardEvent('paste', {clipboardData: data, bubbles: true})];
            zone.dispatchEvent(event);
        }""",
        way,
    )
    wait_for_text(page, "#status", "nearest of")
    assert "mine.png" in page.locator("#query").inner_text()


def test_what_is_no_image_is_refused_in_words(page, tmp_path):
    file = tmp_path / "notes.png"
    file.write_text("not an image")
    page.locator("#drop input").set_input_files(file)
    told = wait_for_text(page, "#status", "can't be used")
    assert told.startswith("notes.png can't be used: not an image of a known format")
    page.locator("#offered button").first.click()
    wait_for_text(page, "#status", "nearest of")


def test_everything_is_reached_by_the_keyboard_in_the_order_of_the_page(page):
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        place = page.evaluate("document.activeElement.closest('[role=tab], [id]:not([id^=component], [id^=html])')?.id")
        if place and (not reached or reached[-1] != place):
            reached.append(place)
        if place == "offered":
            break
    order = [place for place in reached if place in ("drop", "count", "splits", "labels", "words", "others", "offered")]
    assert order == ["drop", "count", "splits", "labels", "words", "others", "offered"]
    page.keyboard.press("Enter")
    wait_for_text(page, "#status", "nearest of")
    page.locator("#results button").nth(4).focus()
    before = page.locator("#query").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_function("before => document.querySelector('#query').innerText != before", arg=before)
    # The next Tab goes on from the nearest of the new neighbours.
    page.wait_for_function("document.activeElement === document.querySelector('#results button')")


def test_images_are_found_by_name_and_hostile_names_are_but_names(page):
    page.locator("#words textarea, #words input").first.fill("odd {{")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#offered button').length == 1")
    assert page.locator("#offered .name").inner_text() == HOSTILE
    page.locator("#words textarea, #words input").first.fill("no such name")
    page.keyboard.press("Enter")
    wait_for_text(page, "#offered", "No image has 'no such name'")


def test_the_map_shows_the_query_and_is_searched_from(page):
    page.locator("#offered button").first.click()
    wait_for_text(page, "#status", "nearest of")
    page.get_by_role("tab", name="Map").click()
    page.locator("#map svg").wait_for()
    assert page.locator("#map .dots circle").count() == 33
    assert page.locator("#map circle.query").count() == 1
    assert page.locator("#map circle.ring").count() == 10
    assert "All 33 images, by t-SNE" in page.locator("#map-status").inner_text()
    assert page.locator("#map .legend").inner_text().split() == ["up", "17", "across", "16"]
    before = page.locator("#map-aside figcaption").inner_text()
    page.locator("#map svg").focus()
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    wanted = page.locator("#map circle.at").get_attribute("data-key")
    page.locator(f'#map .glimpse[src^="thumbnail/{wanted}?"]').wait_for()
    page.keyboard.press("Enter")
    page.locator(f'#map-aside figure img[src^="picture/{wanted}?"]').wait_for()
    dot = page.locator("#map .dots circle").nth(7)
    other = dot.get_attribute("data-key")
    dot.dispatch_event("click")
    page.locator(f'#map-aside figure img[src^="picture/{other}?"]').wait_for()
    assert page.locator("#map-aside figcaption").inner_text() != before


def test_runs_have_their_curves_and_a_report_that_can_do_nothing(page):
    page.evaluate("window.heard = []; window.addEventListener('message', event => window.heard.push(event.data))")
    page.get_by_role("tab", name="Runs").click()
    page.locator("#runs button").first.click()
    page.locator("#run .curves img").wait_for()
    assert "accuracy" in page.locator("#run dl").inner_text()
    report = page.frame_locator("#run iframe").locator("body")
    assert report.inner_text() == "what was found"
    assert page.evaluate("window.heard").count("out") == 0
    assert page.locator("#run a").get_attribute("href") == "report/first"


def test_the_page_fits_a_telephone(page):
    page.set_viewport_size({"width": 390, "height": 800})
    page.locator("#offered button").first.click()
    wait_for_text(page, "#status", "nearest of")
    for tab in ("Map", "Runs", "Search"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_images_that_have_moved_are_still_shown(page, served):
    moved = served.photos / "train/across/5.png"
    moved.rename(served.photos.parent / "elsewhere.png")
    try:
        page.locator("#words textarea, #words input").first.fill("train/across/5.png")
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelectorAll('#offered button').length == 1")
        page.locator("#offered button").click()
        wait_for_text(page, "#query", "The file has moved")
        page.wait_for_function("document.querySelector('#query img').naturalWidth == 16")
    finally:
        (served.photos.parent / "elsewhere.png").rename(moved)


def get(served, path, method="GET", body=None, headers=None):
    """A request with `path` as it is; no client tidies it up."""
    connection = http.client.HTTPConnection(urlsplit(served.address).netloc, timeout=60)
    connection.putrequest(method, path, skip_host=bool(headers and "host" in headers))
    for name, value in (headers or {}).items():
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def climbs(target):
    """Ways to ask for a file by its path."""
    up = "../" * 12 + target.lstrip("/")
    coded = up.replace("../", "%2e%2e%2f")
    roots = ("gradio_api/file=", "file=", "file/", "gradio_api/file/", "static/", "assets/", "report/", "thumbnail/")
    roots += ("picture/", "svelte/", "gradio_api/proxy=file://", "gradio_api/custom_component/1/client/component/")
    return [f"/{root}{path}" for root in roots for path in (target, up, coded, coded.replace("%2f", "%252f"))]


def test_no_file_is_served_whatever_is_asked(served):
    secret = served.photos.parent / "secret.png"
    index = served.index / "index.json"
    image = served.photos / "train/up/0.png"
    for target in (secret, index, image, Path("/etc/passwd")):
        told = target.read_bytes()
        for path in climbs(str(target)):
            status, content = get(served, path)
            assert status >= 400, path
            assert told not in content, path


def test_only_pictures_of_the_index_are_given(served):
    key = Index.open(served.index).entries[0].key
    status, content = get(served, f"/thumbnail/{key}")
    assert (status, content[:4]) == (200, b"\x89PNG")
    for wrong in ("-1", "999999999", "9" * 30, "x", "", f"{key}.png", "%00"):
        for kind in ("thumbnail", "picture"):
            status, content = get(served, f"/{kind}/{wrong}")
            assert 400 <= status < 500, wrong
            assert content[:4] != b"\x89PNG"
    assert get(served, f"/thumbnail/{key}", headers={"host": "evil.example"})[0] == 421


def test_an_image_too_large_is_refused_before_it_is_read(served):
    connection = http.client.HTTPConnection(urlsplit(served.address).netloc, timeout=60)
    connection.putrequest("POST", "/image")
    connection.putheader("content-length", str(UPLOAD_BYTES + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def ask(served, component, event, data, picked=None, session="one"):
    """What the page's script does when something is chosen; the last answer of the server."""
    config = json.load(urllib.request.urlopen(f"{served.address}config", timeout=60))
    place = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == component)
    number = next(step["id"] for step in config["dependencies"] if [place, event] in step["targets"])
    body = {"fn_index": number, "data": data, "event_data": picked, "session_hash": session, "trigger_id": place}
    status, content = get(
        served, "/gradio_api/queue/join", "POST", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    assert status == 200, content
    with urllib.request.urlopen(f"{served.address}gradio_api/queue/data?session_hash={session}", timeout=120) as lines:
        for line in lines:
            answer = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
            if answer.get("msg") == "process_completed":
                return answer
    raise AssertionError("the answer never came")


def test_many_at_once_are_queued_and_all_answered(served):
    keys = [entry.key for entry in Index.open(served.index).entries]

    def one(visitor):
        wanted = keys[visitor % len(keys)]
        return ask(served, "results", "pick", [10, [], []], {"key": str(wanted)}, f"visitor{visitor}")

    with ThreadPoolExecutor(24) as crowd:
        answers = list(crowd.map(one, range(48)))
    for visitor, answer in enumerate(answers):
        assert answer["success"], answer
        query, status, results, _ = answer["output"]["data"]
        assert f"picture/{keys[visitor % len(keys)]}?" in query
        assert "10 nearest of 33 images" in status
        assert results.count("<li>") == 10


@pytest.mark.parametrize("picked", [None, {}, {"key": "-1"}, {"key": "../../etc/passwd"}, {"key": "9" * 40}, [1], "x"])
def test_a_choice_that_is_none_is_told_and_nothing_breaks(served, picked):
    answer = ask(served, "results", "pick", [10, [], []], picked, f"odd{picked!r}"[:20].encode().hex())
    assert answer["success"]
    assert "choose" in str(answer["output"])


def test_a_file_of_this_machine_is_not_taken_for_one_that_was_sent(served):
    for path in (served.photos / "train/up/1.png", served.photos.parent / "secret.png"):
        file = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        for component, event, picked in (("results", "pick", {"key": "0"}), ("drop", "sent", {"word": str(path)})):
            answer = ask(served, component, event, [file, [], []], picked, f"file {path.name} {event}".encode().hex())
            assert "<figure" not in str(answer)
        assert path.exists()
    assert [path for path in served.temporary.rglob("*") if path.is_file()] == []


def test_what_was_sent_is_taken_once_by_who_sent_it(served):
    image = (served.photos / "train/up/1.png").read_bytes()
    status, word = get(served, "/image", "POST", image, {"x-name": "..%2Fa%20%3Cb%3E.png"})
    assert status == 200
    for attempt, expected in enumerate(("a &lt;b&gt;.png", "did not arrive")):
        answer = ask(served, "drop", "sent", [5, [], []], {"word": word.decode(), "status": 200}, f"sent{attempt}")
        assert expected in str(answer["output"])
    answer = ask(served, "drop", "sent", [5, [], []], {"status": 413}, "large")
    assert "larger than 50 MB" in str(answer["output"])


def test_the_server_has_asked_no_other_machine(served):
    assert (served.photos.parent / "connections").read_text() == ""


def test_stopping_it_is_quiet_and_leaves_nothing(served):
    before = len(served.said)
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(timeout=30) == 0
    assert "".join(served.said[before:]).strip() == ""
    assert list(served.temporary.glob("fewlabel-app-*")) == []
