"""What becomes of rows when images come in."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewlabel.retrieval.manifest import Entry
from fewlabel.retrieval.merge import Added, merge


def image(identity, content, *, path=True, labels=(), split="train"):
    return Entry(identity, f"/photos/{identity}" if path else None, labels, split, None, content, -1)


def start(*images):
    return merge([], images, "photos").entries


def everywhere(path):
    return True


def nowhere(path):
    return False


def test_equal_contents_share_a_key_and_others_do_not():
    merged = merge([], [image("a", "x"), image("b", "y"), image("c", "x")], "photos")
    assert [entry.key for entry in merged.entries] == [0, 1, 0]
    assert merged.keys == {"x": 0, "y": 1}
    assert merged.counts == Added(new=2, copies=1)


@pytest.mark.parametrize(
    ("incoming", "counts", "contents"),
    [
        (image("a", "x"), Added(known=1), ["x", "y"]),
        (image("a", "x", labels=("cat",)), Added(updated=1), ["x", "y"]),
        (image("a", "x", split="test"), Added(updated=1), ["x", "y"]),
        (image("a", "z"), Added(replaced=1), ["z", "y"]),
        (image("a", "y"), Added(replaced=1), ["y", "y"]),
        (image("c", "z"), Added(new=1), ["x", "y", "z"]),
        (image("c", "x"), Added(copies=1), ["x", "y", "x"]),
    ],
)
def test_fates_of_an_image_file(incoming, counts, contents):
    merged = merge(start(image("a", "x"), image("b", "y")), [incoming], "photos", exists=everywhere)
    assert merged.counts == counts
    assert [entry.content for entry in merged.entries] == contents
    assert merged.dead == ([0] if counts.replaced else [])


def test_a_file_that_is_gone_is_followed_to_where_it_is():
    rows = start(image("a", "x"), image("b", "x"))
    there = replace(image("a", "x"), path="/new/a")
    merged = merge(rows, [there], "photos", exists=lambda path: path != "/photos/a")
    assert [entry.path for entry in merged.entries] == ["/new/a", "/photos/b"]
    assert merged.counts == Added(moved=1)
    # Both gone: each new place takes one of the old.
    both = [replace(image(name, "x"), path=f"/new/{name}") for name in "ab"]
    merged = merge(rows, both, "photos", exists=nowhere)
    assert [entry.path for entry in merged.entries] == ["/new/a", "/new/b"]
    assert merged.counts == Added(moved=2)


def test_an_id_that_is_taken_is_qualified_by_the_source():
    rows = start(image("a", "x"))
    for number, name in enumerate(("photos/a", "photos-2/a", "photos-3/a")):
        other = replace(image("a", f"y{number}"), path=f"/other-{number}/a")
        rows = merge(rows, [other], "photos", exists=everywhere).entries
        assert rows[-1].id == name
    again = merge(rows, [replace(image("a", "y1"), path="/other-1/a")], "photos", exists=everywhere)
    assert again.counts == Added(known=1)


def test_images_without_a_file_are_known_by_id_and_content():
    rows = start(image("0", "x", path=False))
    assert merge(rows, [image("0", "x", path=False)], "other").counts == Added(known=1)
    other = merge(rows, [image("0", "y", path=False)], "other")
    assert [entry.id for entry in other.entries] == ["0", "other/0"]
    assert merge(other.entries, [image("0", "y", path=False)], "other").counts == Added(known=1)
    assert merge(rows, [image("1", "x", path=False)], "other").counts == Added(copies=1)


images = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), st.booleans()), unique_by=lambda one: one[0], max_size=4
)


@given(st.lists(images, max_size=4), images)
def test_whatever_comes_the_rows_stay_sound_and_a_second_time_changes_nothing(before, last):
    rows = []
    for batch in [*before, last]:
        incoming = [image(identity, content, path=path) for identity, content, path in batch]
        merged = merge(rows, incoming, "photos", exists=everywhere)
        assert sum(vars(merged.counts).values()) == len(incoming)
        keys = {entry.content: entry.key for entry in merged.entries}
        assert len(set(keys.values())) == len(keys)
        assert all(keys[entry.content] == entry.key for entry in merged.entries)
        assert len({entry.id for entry in merged.entries}) == len(merged.entries)
        old = {entry.key for entry in rows}
        assert set(merged.dead) == old - set(keys.values())
        assert set(merged.keys.values()) == set(keys.values()) - old
        again = merge(merged.entries, incoming, "photos", exists=everywhere)
        assert again.entries == merged.entries
        assert again.counts == Added(known=len(incoming))
        rows = merged.entries
