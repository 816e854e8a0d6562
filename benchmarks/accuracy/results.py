"""What a working folder holds, as rows, and as the one JSON file of a benchmark."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.accuracy.judging import judgement, numbers, paired, place_of, scores
from benchmarks.accuracy.material import Material, Source
from benchmarks.accuracy.request import INT8
from benchmarks.accuracy.settings import QUANTLAB, SETTINGS
from benchmarks.accuracy.stored import Found, read
from benchmarks.figures import Figure
from benchmarks.peers.environments import ROOT
from benchmarks.peers.results import FACTS
from quantlab.engines.host import host, versions
from quantlab.files import write

PATH = ROOT / "benchmarks" / "results" / "accuracy.json"

COMPARED = {"quantlab-auto": True, "quantlab-auto-openvino": False}
"""Settings that are compared with every peer sample by sample, and whether the best peer is looked
for among those of symmetric INT8 or among the others."""


@dataclass(frozen=True, slots=True)
class Row:
    """A setting on a network.

    Attributes:
        network: name in NETWORKS.
        form: of the network.
        setting: name in SETTINGS.
        metric: that the network is judged by.
        quantized: an Outcome of ``quantizing``, as a dict.
        judged: what ``judging.judged`` found; empty if there is no model.
        runtimes: what ``timing`` found of its structure, by runtime; empty if not timed.
        plan: what ``building.built`` found; empty if TensorRT-RTX was not asked.
    """

    network: str
    form: str
    setting: str
    metric: str
    quantized: Found
    judged: Found
    runtimes: Found
    plan: Found

    @property
    def peer(self) -> bool:
        """Whether it is not quantlab's."""
        return SETTINGS[self.setting].tool != QUANTLAB

    @property
    def drop(self) -> tuple[float, float, float] | None:
        """What is lost in the network's metric, with its interval; None without a model."""
        if "metrics" not in self.judged:
            return None
        value, low, high = self.judged["metrics"][self.metric]["drop"]
        return value, low, high

    @property
    def symmetric(self) -> bool:
        """Whether all activations are symmetric INT8, TensorRT's rule."""
        return bool(self.judged.get("contents", {}).get("activations") == ["int8"])

    @property
    def share(self) -> float:
        """Percent of the multiply-accumulates that are INT8."""
        contents = self.judged["contents"]
        return 100.0 * float(contents["int8_macs"] / max(contents["macs"], 1))

    @property
    def key(self) -> tuple[str, str]:
        """Network and form."""
        return self.network, self.form


@dataclass(frozen=True, slots=True)
class Results:
    """A benchmark.

    Attributes:
        facts: host, versions, seed, numbers of samples.
        materials: what each network and form was made of, by "network-form".
        rows: of all networks, forms and settings that were run.
        floats: FP32's times, by "network-form".
        beyond: what quantlab's settings of ``COMPARED`` lose beyond a peer, paired on the samples:
            by "network-form", setting and peer.
        confirmed: what ``confirming`` found, by "network-form" and setting.
    """

    facts: Found
    materials: Found
    rows: tuple[Row, ...]
    floats: Found
    beyond: Found
    confirmed: Found

    def save(self, path: Path, figures: Sequence[Figure]) -> None:
        """Write everything as JSON."""
        content = asdict(self)
        content["figures"] = [asdict(figure) | {"met": figure.met} for figure in figures]
        write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def load(path: Path) -> Results:
    """Read what ``save`` wrote; the figures are computed again."""
    content = json.loads(path.read_text())
    rows = tuple(Row(**row) for row in content["rows"])
    return Results(
        **{field.name: content[field.name] for field in fields(Results)} | {"rows": rows}
    )


def gathered(materials: Sequence[Material], settings: Sequence[str], source: Source) -> Results:
    """Read the working folder."""
    rows = tuple(row for material in materials for row in _rows(material, settings))
    timed = {m.folder.name: read(m.folder / "timed.json") for m in materials}
    return Results(
        facts={
            "host": {name: value for name, value in host().items() if name in FACTS},
            "versions": _versions(rows),
            "seed": source.seed,
            "samples": source.samples,
        },
        materials={m.folder.name: read(m.folder / "material.json") for m in materials},
        rows=rows,
        floats={
            name: {runtime: found["fp32"] for runtime, found in times.items()}
            for name, times in timed.items()
        },
        beyond={m.folder.name: _beyond(m, rows) for m in materials},
        confirmed={m.folder.name: _confirmed(m, rows) for m in materials},
    )


def _confirmed(material: Material, rows: Sequence[Row]) -> Found:
    settings = [row.setting for row in _judged(material, rows)]
    found = {setting: read(confirmation(material, setting)) for setting in settings}
    return {setting: one for setting, one in found.items() if one}


def confirmation(material: Material, setting: str) -> Path:
    """Return the file that holds what ``confirming`` found of a setting's model."""
    return place_of(material, material.cell(setting) / INT8, f"-{setting}")


def _judged(material: Material, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of a network and form whose model was judged."""
    return [row for row in rows if row.key == (material.name, material.form) and row.drop]


def _beyond(material: Material, rows: Sequence[Row]) -> Found:
    """Compare sample by sample with every peer."""
    here = _judged(material, rows)
    return {
        own.setting: {
            peer.setting: numbers(
                paired(scores(material, peer.setting), scores(material, own.setting))
            )
            for peer in here
            if peer.peer
        }
        for own in here
        if own.setting in COMPARED
    }


def _rows(material: Material, settings: Sequence[str]) -> Iterator[Row]:
    timed = read(material.folder / "timed.json")
    for setting in settings:
        folder = material.cell(setting)
        quantized = read(folder / "quantized.json")
        if not quantized:
            continue
        finished = quantized["end"] == "finished"
        judged = read(judgement(material, setting)) if finished else {}
        shape = judged.get("structure")
        yield Row(
            network=material.name,
            form=material.form,
            setting=setting,
            metric=material.task.metric,
            quantized=quantized,
            judged=judged,
            runtimes={r: times[shape] for r, times in timed.items() if shape in times},
            plan=read(folder / "built.json"),
        )


def _versions(rows: Sequence[Row]) -> Mapping[str, Any]:
    """Return the versions of packages, by environment; "judge" is what judges and times."""
    found: dict[str, Any] = {"judge": versions()}
    for row in rows:
        if told := row.quantized["versions"]:
            name = SETTINGS[row.setting].environment
            # the checkout's own metadata is seen from every environment
            found[name] = {k: v for k, v in told.items() if name == QUANTLAB or k != QUANTLAB}
    return found
