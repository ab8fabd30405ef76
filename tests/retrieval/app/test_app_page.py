"""The page as it is served, in a real browser."""

import re

import pytest


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


def test_images_are_found_by_name_and_hostile_names_are_but_names(page, served):
    page.locator("#words textarea, #words input").first.fill("odd {{")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#offered button').length == 1")
    assert page.locator("#offered .name").inner_text() == served.hostile
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
