"""What a vector index was made of, why, and how well it finds what exact search finds; no FAISS, no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from fewlabel.errors import UserError

__all__ = ["METRICS", "Metric", "Plan", "Recall"]

Metric = Literal["cosine", "euclidean"]
METRICS: tuple[Metric, ...] = get_args(Metric)


@dataclass(frozen=True)
class Recall:
    """Share of the true `k` nearest neighbours that the index returns among its own `k`.

    Attributes:
        k: neighbours looked at.
        asked: what the search parameters were tuned to.
        measured: mean over the queries, none of which took part in the tuning or was in the index then;
            1.0 for an exact index.
        queries: how many were measured; 0 where exact search needs no measuring.
    """

    k: int
    asked: float
    measured: float
    queries: int

    @property
    def reached(self) -> bool:
        """Whether the index finds what was asked for."""
        return self.measured >= self.asked


@dataclass(frozen=True)
class Plan:
    """What was chosen for a vector index.

    Attributes:
        asked: the factory asked for, or "auto".
        factory: what was built, as `faiss.index_factory` takes it.
        why: for the user, in a sentence.
        metric: cosine or euclidean.
        count: vectors that it was chosen for.
        width: components of a vector.
        parameters: FAISS's search parameters by its own names (`nprobe`, `efSearch`, `k_factor`).
        recall: against exact search.
        bytes_per_vector: of the index file, keys included.
        seed: of the training sample and of the held-out queries.
    """

    asked: str
    factory: str
    why: str
    metric: Metric
    count: int
    width: int
    parameters: Mapping[str, int]
    recall: Recall
    bytes_per_vector: float
    seed: int

    def as_json(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The plan that `as_json` gave.

        Raises:
            UserError: it is something else.
        """
        try:
            names = {field.name for field in fields(cls)}
            if set(value) != names or value["metric"] not in METRICS:
                raise ValueError(f"it has {sorted(value)} with metric {value.get('metric')!r}")
            parameters = {str(name): int(number) for name, number in value["parameters"].items()}
            return cls(**{**value, "parameters": parameters, "recall": Recall(**value["recall"])})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"The index's plan can't be read ({error}): build the index again.") from None
