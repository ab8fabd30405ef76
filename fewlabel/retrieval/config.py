"""What a user can say about how an index is made; nothing heavy is imported here."""

from dataclasses import dataclass

from fewlabel.errors import UserError
from fewlabel.retrieval.plan import Metric

__all__ = ["IndexConfig"]


@dataclass(frozen=True)
class IndexConfig:
    """How vectors are kept and compared.

    Raises:
        UserError: a value is out of range.
    """

    factory: str = "auto"
    """A FAISS factory such as Flat, HNSW32 or IVF1024,PQ64. auto: exact search while that is fast, then by count and
    memory."""
    metric: Metric = "cosine"
    """What similar means: the angle between features, or their distance."""
    recall: float = 0.99
    """Share of the true 10 nearest that a search shall find; the search parameters are tuned to it."""
    memory: float | None = None
    """GiB that the vectors may take. Default: as much as they need."""

    def __post_init__(self) -> None:
        """Check ranges, so that a typing error shows before any image is read."""
        if not 0 < self.recall <= 1:
            raise UserError(f"--recall is {self.recall}; it must be above 0 and at most 1, as in --recall 0.99.")
        if self.memory is not None and not 0 < self.memory < float("inf"):
            raise UserError(f"--memory is {self.memory}; it must be a number of GiB above 0.")

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes."""
        return None if self.memory is None else int(self.memory * 2**30)
