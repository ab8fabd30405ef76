"""The layers of a FAISS index: its search parameters, searching a selection, and taking vectors out of it.

An index may stand on another: re-ranking on inverted lists, say. All number vectors by position, 0 to `ntotal` - 1.
"""

import re
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from fewlabel.errors import UserError

__all__ = ["Knob", "create", "knobs", "lists_of", "reason", "remove_positions", "selecting"]

INNER = {faiss.IndexRefine: "base_index", faiss.IndexPreTransform: "index"}
DENSE = (faiss.IndexFlatCodes, faiss.IndexFastScan)
"""Kinds whose `remove_ids` closes the gaps that it makes."""
BLOCK = 65536


@dataclass(frozen=True)
class Knob:
    """A search parameter: more of it finds more and takes longer.

    Attributes:
        name: FAISS's.
        owner: the FAISS object that has it as an attribute.
        highest: beyond which nothing is gained.
        bytes_per_unit: read for one query for each unit of it, about; of `k_factor`, for one candidate.
    """

    name: str
    owner: Any
    highest: int
    bytes_per_unit: float

    def turn(self, value: int) -> None:
        """Set it."""
        setattr(self.owner, self.name, value)


def create(factory: str, width: int, metric: int) -> Any:
    """An empty index of vectors of `width`.

    Raises:
        UserError: FAISS makes none of that factory.
    """
    try:
        return faiss.index_factory(width, factory, metric)
    except (RuntimeError, MemoryError, AssertionError) as error:
        raise UserError(
            f"--factory {factory} makes no index of vectors of width {width}: {reason(error)}. "
            "Take auto, or one of those of FAISS, such as Flat, HNSW32 or IVF1024,PQ64."
        ) from None


def reason(error: BaseException) -> str:
    """What FAISS says, without the place in its source."""
    text = " ".join(str(error).split())
    found = re.search(r"\.(?:cpp|h):\d+: (?:Error: '.*?' failed:? ?)?(.+)$", text)
    return found[1] if found else text or type(error).__name__


def layers(index: Any) -> list[Any]:
    """The index and those that it stands on, outermost first, as what they are."""
    found = [faiss.downcast_index(index)]
    for kind, name in INNER.items():
        if isinstance(found[0], kind):
            found += layers(getattr(found[0], name))
    return found


def lists_of(index: Any) -> Any | None:
    """The layer with inverted lists, if it has one."""
    return next((layer for layer in layers(index) if isinstance(layer, faiss.IndexIVF)), None)


def knobs(index: Any) -> list[Knob]:
    """The search parameters of all layers, outermost first."""
    found = []
    for layer in layers(index):
        if isinstance(layer, faiss.IndexRefine):
            # Vectors at random places are read at a third of the speed of codes in a row.
            size = faiss.downcast_index(layer.refine_index).sa_code_size()
            found.append(Knob("k_factor", layer, 64, 3.0 * size))
        elif isinstance(layer, faiss.IndexIVF):
            # Each list read costs a table of distances, as large as 16 B a component.
            size = 1.0 * layer.code_size * layer.ntotal / layer.nlist + 16 * layer.d
            found.append(Knob("nprobe", layer, layer.nlist, size))
        elif isinstance(layer, faiss.IndexHNSW):
            found.append(Knob("efSearch", layer.hnsw, max(16, min(layer.ntotal, 4096)), 16.0 * layer.d))
    return found


def selecting(index: Any, selector: Any, effort: float) -> Any:
    """FAISS's parameters of a search among what `selector` lets through, with `effort` times the nprobe or efSearch."""
    layer = faiss.downcast_index(index)
    if isinstance(layer, faiss.IndexRefine):
        below = selecting(layer.base_index, selector, effort)
        return faiss.IndexRefineSearchParameters(k_factor=layer.k_factor, base_index_params=below)
    if isinstance(layer, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=selecting(layer.index, selector, effort))
    if isinstance(layer, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=min(layer.nlist, int(layer.nprobe * effort)))
    if isinstance(layer, faiss.IndexHNSW):
        highest = max(layer.hnsw.efSearch, layer.ntotal)
        return faiss.SearchParametersHNSW(sel=selector, efSearch=min(highest, int(layer.hnsw.efSearch * effort)))
    return faiss.SearchParameters(sel=selector)


def remove_positions(index: Any, positions: NDArray[np.int64]) -> None:
    """Take out the vectors at `positions`; those behind move up.

    Where a layer can't drop vectors, as graphs can't, the index is made again from the vectors that it holds.
    """
    kept = np.delete(np.arange(index.ntotal), positions)
    if _droppable(index):
        moved = np.cumsum(np.bincount(kept, minlength=index.ntotal)) - 1
        _drop(index, positions, moved)
        return
    rows = index.reconstruct_batch(kept) if len(kept) else np.empty((0, index.d), np.float32)
    index.reset()
    for start in range(0, len(rows), BLOCK):
        index.add(rows[start : start + BLOCK])


def _droppable(index: Any) -> bool:
    layer = faiss.downcast_index(index)
    if isinstance(layer, faiss.IndexRefine):
        return _droppable(layer.base_index) and _droppable(layer.refine_index)
    if isinstance(layer, faiss.IndexPreTransform):
        return _droppable(layer.index)
    return isinstance(layer, (*DENSE, faiss.IndexIVF))


def _drop(index: Any, positions: NDArray[np.int64], moved: NDArray[np.int64]) -> None:
    layer = faiss.downcast_index(index)
    if isinstance(layer, faiss.IndexRefine):
        _drop(layer.base_index, positions, moved)
        _drop(layer.refine_index, positions, moved)
    elif isinstance(layer, faiss.IndexPreTransform):
        _drop(layer.index, positions, moved)
    elif isinstance(layer, faiss.IndexIVF):
        layer.set_direct_map_type(faiss.DirectMap.NoMap)
        layer.remove_ids(faiss.IDSelectorBatch(positions))
        # Lists keep the numbers that vectors had when they were added.
        for number in range(layer.nlist):
            if size := layer.invlists.list_size(number):
                ids = faiss.rev_swig_ptr(layer.invlists.get_ids(number), size)
                ids[:] = moved[ids]
        return
    else:
        layer.remove_ids(faiss.IDSelectorBatch(positions))
        return
    layer.ntotal -= len(positions)
