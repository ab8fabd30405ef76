"""The page of a study: self-contained, right at every moment of a study's life, and safe with any name."""

import base64
import json
import re
import struct
from html.parser import HTMLParser

import numpy as np
import pytest
from made_studies import BASE_COST, add, compound_study, free_study, interval, new_study
from optuna.trial import TrialState

from fewlabel.search.candidate import Candidate
from fewlabel.search.plots import plots_of
from fewlabel.search.report import html_of, write_report
from fewlabel.search.table import FULL_LENGTH
from fewlabel.tracking.run import Run

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Elements, links and text of a page whose tags are all closed; scripts apart."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.texts, self.scripts = [], [], [], []
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
        (self.scripts if "script" in self.open else self.texts).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def links(self):
        return [attributes["href"] for tag, attributes in self.elements if tag == "a"]

    @property
    def sections(self):
        return [attributes["id"] for tag, attributes in self.elements if tag == "h2"]


def read(study):
    return Reader(html_of(study, lambda name, row: None))


def numbers(data):
    """The values of an axis, as plotly keeps them in JSON: a list, or packed."""
    if isinstance(data, dict):
        assert data["dtype"] == "f8"
        packed = base64.b64decode(data["bdata"])
        return list(struct.unpack(f"<{len(packed) // 8}d", packed))
    return list(data)


def traces(study, name):
    (plot,) = (plot for plot in plots_of(study) if plot.name == name)
    return {trace.get("name"): trace for trace in json.loads(plot.figure.to_json())["data"]}


def test_the_page_stands_alone_and_loads_nothing(tmp_path, storage):
    page = write_report(compound_study(storage), tmp_path)
    assert page == tmp_path / "report.html"
    seen = Reader(page.read_text())
    (policy,) = (one["content"] for tag, one in seen.elements if one.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    assert not [one for tag, one in seen.elements if "src" in one]
    assert not {tag for tag, _ in seen.elements} & {"link", "iframe", "object", "embed", "base", "form"}
    # plotly.js is inside, once.
    assert sum(len(script) > 1_000_000 for script in seen.scripts) == 1
    assert all(link.startswith("#") for link in seen.links)


def test_a_finished_compound_study_is_shown_whole(storage):
    study = compound_study(storage)
    seen = read(study)
    assert seen.sections == [
        "which-to-buy",
        "what-accuracy-costs",
        "what-scaling-costs",
        "the-course-of-the-search",
        "what-mattered",
        "all-trials-at-a-glance",
        "every-trial",
        "how-it-was-searched",
    ]
    assert seen.text.index("resolution bought the most") < seen.text.rindex("What accuracy costs")
    assert "0.660 (0.650 to 0.670)" in seen.text
    assert "rejected: over the budget of 4x" in seen.text
    assert "Source, name digits" in seen.text


def test_the_scaling_curves_lead_from_the_base_through_what_was_trained(storage):
    drawn = traces(compound_study(storage), "scaling")
    assert numbers(drawn["resolution alone"]["y"]) == pytest.approx([0.6, 0.66])
    assert numbers(drawn["resolution alone"]["x"]) == pytest.approx([1.0, 1.4**2 * 1.03], abs=1e-4)
    assert numbers(drawn["resolution alone"]["error_y"]["array"]) == pytest.approx([0.01, 0.01])
    # The chosen of the grid is phi = 1; phi = 3 was over the budget and has no value.
    assert numbers(drawn["scaled by phi"]["y"]) == pytest.approx([0.6, 0.7, 0.74])
    assert sorted(numbers(drawn["mixture"]["y"])) == [0.65, 0.67]


def test_the_law_of_the_paper_is_drawn_through_the_counted_costs(storage):
    drawn = traces(compound_study(storage), "cost_law")
    (law,) = (trace for name, trace in drawn.items() if name.startswith("(1.2 x"))
    assert numbers(law["x"])[-1] == 3
    assert numbers(law["y"])[0] == 1
    assert numbers(law["y"])[-1] == pytest.approx((1.2 * 1.1**2 * 1.15**2) ** 3)
    counted = drawn["counted"]
    assert numbers(counted["x"]) == [0, 1, 2, 3]
    grown = [1.03 * (1.2 * 1.21 * 1.3225) ** phi for phi in (1, 2, 3)]
    assert numbers(counted["y"]) == pytest.approx([1, *grown], abs=1e-3)
    assert counted["marker"]["symbol"] == ["circle", "circle", "circle", "circle-open"]


def test_free_mode_has_its_front(storage):
    study = free_study(storage, trials=60)
    seen = read(study)
    assert "the-pareto-front" in seen.sections
    front = traces(study, "scaling")["best for its cost"]
    values = numbers(front["y"])
    assert values == sorted(values)
    finished = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    assert values[-1] == max(trial.values[0] for trial in finished)
    assert numbers(front["x"])[0] == min(trial.values[1] for trial in finished) / BASE_COST["flops"]


def test_importance_is_that_for_a_high_quality_also_with_several_objectives(storage):
    study = new_study(storage, objectives=("accuracy", "flops"))
    generator = np.random.default_rng(0)
    for number in range(80):
        depth, resolution = (float(side) for side in 2 ** generator.uniform(-1, 1, 2))
        # Depth makes the worst trials so bad, and resolution the best so good.
        value = 0.6 + min(0.0, np.log2(depth) + 0.5) + 0.1 * max(0.0, np.log2(resolution))
        add(study, f"trial/{number}", Candidate(depth=depth, resolution=resolution), interval(value))
    (bars,) = traces(study, "importances").values()
    weight = dict(zip(bars["y"], numbers(bars["x"]), strict=True))
    assert weight["resolution"] > weight["depth"]


@pytest.mark.parametrize(
    ("trials", "sections"),
    [
        ([], []),
        ([("base", Candidate(), TrialState.RUNNING)], []),
        ([("trial/1", Candidate(depth=2.0), TrialState.PRUNED)], []),
        (
            [("trial/1", Candidate(depth=2.0), TrialState.PRUNED), ("trial/2", Candidate(), TrialState.PRUNED)],
            ["what-scaling-costs"],
        ),
        ([("base", Candidate(), TrialState.COMPLETE)], ["what-accuracy-costs", "the-course-of-the-search"]),
        (
            [("base", Candidate(), TrialState.COMPLETE), ("again", Candidate(), TrialState.COMPLETE)],
            ["what-accuracy-costs", "the-course-of-the-search"],
        ),
    ],
)
@pytest.mark.parametrize(
    "objectives", [("accuracy",), ("accuracy", "flops"), ("accuracy", "flops", "latency", "params")]
)
def test_a_young_or_luckless_study_has_a_page_too(storage, objectives, trials, sections):
    study = new_study(storage, objectives=objectives)
    for slot, candidate, state in trials:
        complete = state is TrialState.COMPLETE
        add(study, slot, candidate, interval(0.6) if complete else None, state=state)
    front = len(objectives) == 2 and "what-accuracy-costs" in sections
    expected = [*sections[:1], "the-pareto-front", *sections[1:]] if front else sections
    assert read(study).sections == ["which-to-buy", *expected, "every-trial", "how-it-was-searched"]


def test_numbers_of_trials_lead_to_their_runs_relative_to_the_page(tmp_path, storage):
    runs = {}

    def run_of(number):
        if number > 1:
            return None
        runs[number] = Run.create("trial", {}, out=tmp_path / "run" / "trials" / f"a {number}", project="test")
        runs[number].finish({})
        return runs[number]

    study = compound_study(storage, run_of=run_of)
    page = write_report(study, tmp_path / "run")
    assert [link for link in Reader(page.read_text()).links if not link.startswith("#")] == [
        "trials/a%200/",
        "trials/a%201/",
    ]


def test_trainings_at_full_length_stand_beside_the_short_ones(storage):
    study = compound_study(storage)
    full = new_study(storage, study.study_name + FULL_LENGTH)
    assert "at-full-length" not in read(study).sections
    add(full, "base", Candidate(), interval(0.8), ratio=1.0)
    add(full, "phi/2", Candidate(1.2**2, 1.1**2, 1.15**2), interval(0.9))
    seen = read(study)
    assert "at-full-length" in seen.sections
    assert "0.740 (0.730 to 0.750) 0.900 (0.890 to 0.910) trained" in seen.text


def test_whatever_a_name_holds_is_text(storage):
    hostile = "</script><script>alert(1)</script><b>&\u2028"
    study = new_study(storage, hostile, source={"name": hostile})
    add(study, hostile, Candidate(), interval(0.5), ratio=1.0, outcome=hostile)
    html = html_of(study, lambda name, row: '"><script>alert(2)</script>')
    seen = Reader(html)
    assert not any("alert(2)" in script or script.startswith("alert(1)") for script in seen.scripts)
    assert hostile[:-1] in " ".join(seen.texts)
    assert re.findall(r"<b>", html) == []
