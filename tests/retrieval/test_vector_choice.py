"""What `auto` picks, what a plan says of itself, and when it is due for another."""

import math
import re

import faiss
import pytest

from fewlabel.errors import UserError
from fewlabel.retrieval.choice import FLAT_BYTES, choose, outgrown, training_sample
from fewlabel.retrieval.plan import Plan, Recall

GIB = 2**30


def a_plan(**changes):
    return Plan(
        **{
            "asked": "auto",
            "factory": "Flat",
            "why": "small",
            "metric": "cosine",
            "count": 1000,
            "width": 512,
            "parameters": {"nprobe": 4},
            "recall": Recall(10, 0.99, 0.993, 50),
            "bytes_per_vector": 2056.0,
            "seed": 0,
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("count", "width", "memory", "factory"),
    [
        (0, 512, None, "Flat"),
        (65_536, 512, None, "Flat"),
        (65_537, 512, None, "IVF512,PQ128x4fs,RFlat"),
        (16_384, 2048, None, "Flat"),
        (20_000, 2048, None, "IVF256,PQ512x4fs,RFlat"),
        (200_000, 512, None, "IVF1024,PQ128x4fs,RFlat"),
        (1_000_000, 512, None, "IVF2048,PQ128x4fs,RFlat"),
        (1_000_000, 512, 3 * GIB // 2, "IVF2048,PQ128x4fs,Refine(SQfp16)"),
        (1_000_000, 512, 1 * GIB, "IVF2048,PQ128x4fs,Refine(SQ8)"),
        (1_000_000, 512, GIB // 2, "IVF2048,PQ128"),
        (1_000_000, 512, GIB // 100, "IVF2048,PQ128"),
        (1_000_000, 1000, None, "IVF2048,PQ250x4fs,RFlat"),
        (1_000_000, 330, None, "IVF2048,PQ66x4fs,RFlat"),
        (1_000_000, 509, None, "IVF2048,SQ8"),
    ],
)
def test_what_is_chosen(count, width, memory, factory):
    chosen, why = choose(count, width, memory)
    assert chosen == factory
    assert re.search(r"\d (MiB|GiB)", why)


def test_what_does_not_fit_is_said():
    assert "the least, though 10 MiB are allowed" in choose(1_000_000, 512, 10 * 2**20)[1]
    assert "of 1.5 GiB" in choose(1_000_000, 512, 3 * GIB // 2)[1]


@pytest.mark.parametrize("width", [24, 192, 320, 330, 384, 509, 512, 768, 1000, 1280, 2048])
def test_faiss_makes_what_is_chosen(width):
    for memory in (None, 600_000 * width, 300_000 * width):
        factory, _ = choose(10**7, width, memory)
        assert faiss.index_factory(width, factory).d == width


def test_less_memory_never_takes_more():
    sizes = []
    for memory in (None, 3 * GIB // 2, GIB, GIB // 2):
        index = faiss.index_factory(512, choose(1_000_000, 512, memory)[0])
        lists = faiss.extract_index_ivf(index)
        refine = faiss.downcast_index(index.refine_index) if isinstance(index, faiss.IndexRefine) else None
        sizes.append(lists.code_size + (refine.sa_code_size() if refine else 0))
        assert memory is None or 1_000_000 * (sizes[-1] + 16) < memory
    assert sizes == sorted(sizes, reverse=True)


def test_training_takes_a_sample_that_faiss_does_not_warn_of():
    for count in (65_537, 10**6, 10**7):
        lists = int(re.search(r"IVF(\d+)", choose(count, 512, None)[0])[1])
        assert lists == pytest.approx(2 * math.sqrt(count), rel=0.42)
        assert 39 * lists <= training_sample(count, lists) <= count


def test_when_an_index_is_outgrown():
    most = FLAT_BYTES // (4 * 512)
    assert not outgrown(a_plan(), 2 * most)
    assert outgrown(a_plan(), 2 * most + 1)
    assert not outgrown(a_plan(asked="Flat"), 10**7)
    lists = a_plan(factory="IVF512,PQ128x4fs,RFlat", count=100_000)
    assert not outgrown(lists, 800_000)
    assert outgrown(lists, 800_001)


def test_a_plan_comes_back_from_json():
    plan = a_plan()
    assert Plan.from_json(plan.as_json()) == plan
    assert plan.recall.reached
    assert not a_plan(recall=Recall(10, 0.99, 0.98, 50)).recall.reached


@pytest.mark.parametrize(
    "change",
    [
        lambda value: None,
        lambda value: [1],
        lambda value: {**value, "extra": 1},
        lambda value: {key: value[key] for key in value if key != "seed"},
        lambda value: {**value, "metric": "manhattan"},
        lambda value: {**value, "parameters": {"nprobe": "many"}},
        lambda value: {**value, "recall": {"k": 10}},
    ],
)
def test_a_plan_that_is_none(change):
    with pytest.raises(UserError, match=r"plan can't be read .*build the index again"):
        Plan.from_json(change(a_plan().as_json()))
