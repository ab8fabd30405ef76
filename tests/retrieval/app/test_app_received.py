import pytest

from fewlabel.retrieval.app import received
from fewlabel.retrieval.app.received import Received, Sent


def test_what_was_sent_is_there_once():
    box = Received()
    first, second = box.put("a.png", b"1"), box.put("b.png", b"2")
    assert first != second
    assert box.take(first) == Sent("a.png", b"1")
    assert box.take(first) is None
    assert box.take(second) == Sent("b.png", b"2")
    assert box.take("guessed") is None


def test_of_too_much_the_oldest_goes(monkeypatch):
    monkeypatch.setattr(received, "_MOST_BYTES", 10)
    box = Received()
    words = [box.put("a.png", bytes(4)) for _ in range(3)]
    assert [box.take(word) is None for word in words] == [True, False, False]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/x.png", "x.png"),
        ("C:\\photos\\y.png", "y.png"),
        ("a\nb.png", "a b.png"),
        ("", "image"),
        ("n" * 999, "n" * 200),
    ],
)
def test_of_a_name_only_its_last_part_is_kept(sent, kept):
    box = Received()
    assert box.take(box.put(sent, b"1")).name == kept
