"""Which FAISS factory suits so many vectors of such a width, and when an index has outgrown its own; no FAISS here."""

import math

from fewlabel.retrieval.plan import Plan

__all__ = ["FLAT_BYTES", "choose", "outgrown", "training_sample"]

FLAT_BYTES = 128 * 2**20
"""Most that exact search may read for one query: 13 ms of memory traffic at 10 GB/s, 65,536 vectors of width 512."""
KEY_BYTES = 8
OUTGROWN = 8
"""Growth after which other lists would suit: twice as many, and then some."""


def choose(count: int, width: int, memory: int | None) -> tuple[str, str]:
    """The factory for `count` vectors of `width` in at most `memory` bytes, and why, as a sentence.

    Up to `FLAT_BYTES` of vectors exact search. Above, inverted lists of 4-bit product-quantisation codes, four
    components a code, scanned in registers (André et al., 2015, "Cache locality is not enough", sections 4 and 5), the
    best re-ranked by vectors in as many bits as the memory holds: 32, 16 or 8, else by nothing.

    Never a graph. A million clustered vectors of width 512, on two busy Zen 3 cores in turns (`make bench`): HNSW32,
    built in 344 s, answered 400 queries a second and no efSearch up to 1024 found more than 0.954 of the ten nearest;
    the lists, built in 253 s, found 0.994 of them at 3,600 queries a second. On vectors without clusters graphs do
    better, at a recall of 0.99 some 2,500 queries a second of 100,000, yet not as well as lists, some 8,000 of 60,000.
    Lists also take removals, and the same seed gives the same lists.
    """
    flat = count * (4 * width + KEY_BYTES)
    if 4 * count * width <= FLAT_BYTES and (memory is None or flat <= memory):
        return "Flat", f"exact search reads {_bytes(4 * count * width)} a query, of at most {_bytes(FLAT_BYTES)}"
    lists = _lists(count)
    parts = _subquantizers(width)
    if parts is None:
        # No way of cutting such a width into equal parts; a byte a component is within a per cent of exact.
        return f"IVF{lists},SQ8", f"{_bytes(flat)} are too much for exact search, and {width} has no divisor for codes"
    codes = f"IVF{lists},PQ{parts}x4fs"
    coarse = 4 * lists * width + count * (parts / 2 + 2 * KEY_BYTES)
    # (factory, bytes of the file, what it is)
    ladder = [
        (f"{codes},RFlat", coarse + 4 * count * width, "re-ranked by full vectors"),
        (f"{codes},Refine(SQfp16)", coarse + 2 * count * width, "re-ranked by 16-bit vectors"),
        (f"{codes},Refine(SQ8)", coarse + count * width, "re-ranked by 8-bit vectors"),
        (f"IVF{lists},PQ{parts}", coarse + count * parts / 2, "not re-ranked, which costs recall"),
    ]
    fitting = [rung for rung in ladder if memory is None or rung[1] <= memory]
    factory, size, kind = (fitting or ladder[-1:])[0]
    why = f"exact search would read {_bytes(4 * count * width)} a query; {lists:,} lists of codes, {kind}, take"
    limit = (
        ""
        if memory is None
        else f" of {_bytes(memory)}"
        if fitting
        else f", the least, though {_bytes(memory)} are allowed"
    )
    return factory, f"{why} {_bytes(size)}{limit}"


def outgrown(plan: Plan, count: int) -> bool:
    """Whether a plan of `auto`'s was made for so much less than `count` vectors that another is due."""
    if plan.asked != "auto" or count <= plan.count:
        return False
    if plan.factory == "Flat":
        return 4 * count * plan.width > 2 * FLAT_BYTES
    return count > OUTGROWN * plan.count


def training_sample(count: int, lists: int) -> int:
    """Vectors to train a factory with `lists` inverted lists on, of `count`: FAISS wants 39 a list, and here has 50."""
    return min(count, max(50 * lists, 50_000))


def _lists(count: int) -> int:
    # FAISS's guidelines say 4 to 16 roots of the count. Scanning codes in registers is so much cheaper than
    # k-means that half of the lower end is better: at 200,000 vectors 1.2 times slower search, training in a quarter.
    return 1 << round(math.log2(2 * math.sqrt(count)))


def _subquantizers(width: int) -> int | None:
    """Parts of 4 components or a few more; codes in registers come in pairs."""
    return next((width // size for size in range(4, 9) if width % (2 * size) == 0), None)


def _bytes(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
