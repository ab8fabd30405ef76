"""The dashboard, the report and the page of a trial, in a real browser."""

import math
import os
import re
import signal
import subprocess
import sys
import threading

import optuna
import pytest
from made_studies import RANGES, compound_study, free_study

from fewlabel.search.notes import trial_address, write_note, write_study_note
from fewlabel.search.report import write_report
from fewlabel.search.storage import sqlite_url
from fewlabel.tracking.run import Run

NAME = "vit on photos/a & b"


def make_search(root):
    """The run of a search with a finished compound study, but for a last trial that is running."""
    search = Run.create("search", {"study": {"storage": None}}, out=root / "search", group=NAME, project="test")
    search.close("interrupted")

    def trained(number):
        out = search.directory / "trials" / f"{number:04d}"
        run = Run.create("trial", {"backbone": {"scale_depth": 1.25}}, out=out, group=NAME, project="test")
        for step in range(0, 60, 5):
            run.log(step, {"loss": 4 * math.exp(-step / 20) + 1, "objective": 0.6 - 0.4 * math.exp(-step / 15)})
        run.finish({})
        return run

    study = compound_study(sqlite_url(search.directory / "study.db"), name=NAME, run_of=trained)
    write_study_note(study)
    trial = study.ask(RANGES)
    run = trained(trial.number)
    values = {"slot": "phi/4", "run": str(run.directory.absolute()), "wandb_id": run.wandb_id, "cost_ratio": 3.9}
    for name, value in values.items():
        trial.set_user_attr(name, value)
    write_note(trial)
    return study, search.directory


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    return make_search(tmp_path_factory.mktemp("searched"))


@pytest.fixture(scope="module")
def address(searched):
    """That of a `fewlabel dashboard` in a process of its own; at its end it must stop quietly."""
    command = [sys.executable, "-m", "fewlabel", "dashboard", "--study", str(searched[1]), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
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
    try:
        ready.wait(timeout=120)
        found = re.search(r"Page:\s+(http://\S+/)", "".join(said))
        if found is None:
            pytest.fail(f"the dashboard did not start: {said}")
        yield found[1]
        before = len(said)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        listening.join()
        assert said[before:] == []
    finally:
        process.kill()
        process.wait()
        listening.join()
        process.stderr.close()


@pytest.fixture
def page(browser):
    """An empty page; afterwards it must have asked no other machine, and had no error."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    yield page
    context.close()
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "file://", "data:", "blob:"))] == []
    assert errors == []


def test_the_dashboard_shows_the_study_and_leads_to_its_report(page, address, tmp_path):
    page.goto(address)
    page.get_by_text(NAME).first.click()
    page.get_by_role("heading", name="History").wait_for()
    page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
    page.screenshot(path=tmp_path / "dashboard.png")
    page.locator("a[href$='/note']").click()
    page.get_by_role("link", name="Report").click()
    page.wait_for_url("**/report/**")
    assert "resolution bought the most" in page.locator(".lead").inner_text()
    assert "The study is not over (1 running)" in page.locator("main").inner_text()


def test_the_note_of_a_trial_leads_to_its_run(page, address, searched, tmp_path):
    number = len(searched[0].get_trials(deepcopy=False)) - 1
    page.goto(f"{address}dashboard/studies/{searched[0]._study_id}/trials?numbers={number}")
    page.get_by_role("link", name="Run of this trial").click()
    page.wait_for_url(f"**{trial_address(NAME, number)}")
    page.screenshot(path=tmp_path / "trial.png", full_page=True)
    assert page.locator("h1").inner_text() == f"Trial {number} of {NAME}"
    assert page.locator(".gallery img").count() == 2
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 300)")
    page.get_by_role("link", name="This trial in the dashboard").click()
    page.get_by_role("link", name="Run of this trial").wait_for()


def test_a_note_is_edited_in_the_dashboard_and_nothing_else_is(page, address, searched):
    study = searched[0]
    names = optuna.get_all_study_names(study._storage)
    status = page.request.delete(f"{address}api/studies/{study._study_id}", data={}).status
    assert status == 403
    assert optuna.get_all_study_names(study._storage) == names


@pytest.mark.parametrize(("kind", "plots"), [("compound", 5), ("free", 6)])
def test_the_report_opens_from_disk_and_draws_its_plots(page, searched, tmp_path, storage, kind, plots):
    study = searched[0] if kind == "compound" else free_study(storage)
    file = write_report(study, tmp_path)
    page.goto(file.as_uri())
    page.wait_for_function("count => document.querySelectorAll('.plot .main-svg').length >= count", arg=plots)
    assert page.locator(".plot .js-plotly-plot").count() == plots
    assert page.evaluate(
        """[...document.querySelectorAll('.js-plotly-plot')].every(
            plot => plot.querySelectorAll('.point, .js-line, .lines path').length > 0
                && plot.getBoundingClientRect().width > 900)"""
    )
    page.screenshot(path=tmp_path / "report.png", full_page=True)
    # The pointer gets an answer.
    point = page.locator(".plot").first.locator(".scatterlayer .point").last
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    page.locator(".hoverlayer .hovertext").first.wait_for()
    assert "times the cost" in (page.locator(".hoverlayer").first.text_content() or "")


def test_the_report_fits_a_phone(page, searched, tmp_path):
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(write_report(searched[0], tmp_path).as_uri())
    page.locator(".plot .main-svg").first.wait_for()
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
