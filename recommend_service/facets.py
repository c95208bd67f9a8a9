"""By what the jobs of a catalogue can be filtered: place, contract and language, where their metadata have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from dynaq.field_names import normalise

Facet = Literal["place", "contract", "language"]
FACETS: tuple[Facet, ...] = get_args(Facet)
# Names of metadata fields in the languages of `dynaq.ingest.columns`, as `normalise` writes them.
FACET_FIELDS: Mapping[Facet, tuple[str, ...]] = {
    "place": ("place", "location", "city", "town", "region", "workplace", "ort", "arbeitsort", "standort", "lieu"),
    "contract": ("contract", "contracttype", "employmenttype", "employment", "jobtype", "vertragsart", "contrat"),
    "language": ("language", "joblanguage", "sprache", "langue"),
}
_FACET_OF: Mapping[str, Facet] = {name: facet for facet, names in FACET_FIELDS.items() for name in names}
LONGEST = 100  # characters of a value
SHOWN = 200  # values of a facet that are offered, the most frequent ones

Mask = npt.NDArray[np.bool_]


class Facets:
    """The jobs of each value. metadata: of every job, in the order of the catalogue's rows."""

    def __init__(self, metadata: Iterable[Mapping[str, Any]]) -> None:
        self._rows: dict[Facet, dict[str, list[int]]] = {facet: {} for facet in FACETS}
        self._count = 0
        for row, fields in enumerate(metadata):
            self._count += 1
            for facet, texts in facets_of(fields).items():
                for text in texts:
                    self._rows[facet].setdefault(text, []).append(row)

    def values(self, facet: Facet) -> list[tuple[str, int]]:
        """Values and how many jobs have them, by name; the SHOWN most frequent."""
        counts = [(text, len(rows)) for text, rows in self._rows[facet].items()]
        most = sorted(counts, key=lambda one: -one[1])[:SHOWN]
        return sorted(most, key=lambda one: one[0].casefold())

    def mask(self, wanted: Mapping[Facet, str]) -> Mask:
        """The jobs that have all of these values, `[n_jobs]`."""
        mask = np.ones(self._count, bool)
        for facet, text in wanted.items():
            has = np.zeros(self._count, bool)
            has[self._rows[facet].get(text, [])] = True
            mask &= has
        return mask


def facets_of(metadata: Mapping[str, Any]) -> dict[Facet, list[str]]:
    """The values of each facet that a job's metadata have; a field may be a list."""
    found: dict[Facet, list[str]] = {}
    for name, value in metadata.items():
        facet = _FACET_OF.get(normalise(name))
        if facet is not None:
            texts = (" ".join(str(one).split())[:LONGEST] for one in (value if isinstance(value, list) else [value]))
            known = found.setdefault(facet, [])
            known += [text for text in dict.fromkeys(texts) if text not in ("", "None", *known)]
    return found
