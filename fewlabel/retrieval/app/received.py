"""Images that visitors sent and that were not looked at yet: in memory, few, and for once."""

import secrets
import threading
from typing import Final, NamedTuple

__all__ = ["Received", "Sent"]

_MOST_BYTES: Final = 256 * 2**20
_LONGEST_NAME: Final = 200


class Sent(NamedTuple):
    """An image file as it came."""

    name: str
    content: bytes


class Received:
    """Keeps what was sent until it is taken; of too much, the oldest is dropped. Nothing is ever written."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, Sent] = {}

    def put(self, name: str, content: bytes) -> str:
        """Keep a file; the word that it is taken by, which nobody can guess."""
        word = secrets.token_urlsafe(16)
        # Of a path, the name; and that on one line.
        plain = " ".join(name.replace("\\", "/").rpartition("/")[2].split())[:_LONGEST_NAME] or "image"
        with self._lock:
            self._waiting[word] = Sent(plain, content)
            while sum(len(sent.content) for sent in self._waiting.values()) > _MOST_BYTES:
                del self._waiting[next(iter(self._waiting))]
        return word

    def take(self, word: str) -> Sent | None:
        """What `put` gave `word` for, and forget it; None where it is not there (any more)."""
        with self._lock:
            return self._waiting.pop(word, None)
