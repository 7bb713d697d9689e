"""What a run folder says about itself, read once for a report. Nothing here opens a store or a network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scanlearn.engine.recipe_file import read_yaml
from scanlearn.engine.record import Record, read_record
from scanlearn.engine.run_folder import RunFolder
from scanlearn.engine.stages import scans_in
from scanlearn.errors import ScanlearnError
from scanlearn.files import read_json
from scanlearn.weights.encoder import CARD

TRAINED = ("pre-training", "fine-tuning")  # the parts that a run trains on


@dataclass(frozen=True)
class Facts:
    """The files of one run as data; what a run does not have (yet) is empty."""

    run: RunFolder
    recipe: dict[str, Any]
    environment: dict[str, Any]
    notes: dict[str, Any]  # of the exported encoder
    parameters: int
    train: list[dict[str, Any]]  # lines of metrics.jsonl
    monitor: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    results: dict[str, Any]
    record: Record | None  # of the data

    @property
    def name(self) -> str:
        """The name of the folder, which is the name of the run."""
        return self.run.path.resolve().name

    @property
    def task(self) -> str:
        """classify, segment, detect, or "" for a pre-training run, which may learn from masks too."""
        if "part" in self.notes:
            return ""
        objectives = self.recipe.get("objectives", {})
        return next((task for task in ("classify", "segment", "detect") if task in objectives), "")

    @property
    def init(self) -> str:
        """The name of what the weights came from, "none" for a fresh network."""
        return str(self.results.get("init") or self.environment.get("init") or self.notes.get("init") or "none")

    @property
    def steps(self) -> int:
        """Steps that were made."""
        logged = self.train[-1]["step"] if self.train else 0
        return max(int(self.notes.get("step", 0)), logged)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end: a fine-tuned one was tested, another one exported its last step."""
        return bool(self.results) if self.task else bool(self.notes.get("finished"))

    @property
    def has_weights(self) -> bool:
        """Whether the exported network is a trained one (before the first export it is the fresh one)."""
        return bool(self.results) or "finished" in self.notes

    @property
    def minutes(self) -> float:
        """Time spent training, without checks and pictures, from the logged speed."""
        seconds, before = 0.0, 0
        for line in self.train:
            if line.get("images_per_second"):
                seconds += scans_in(self.recipe, before, line["step"]) / line["images_per_second"]
            before = line["step"]
        return seconds / 60

    @property
    def trained(self) -> str | None:
        """The part that the run trained on."""
        return next((part for part in TRAINED if self.record is not None and part in self.record.parts), None)

    @property
    def patients_known(self) -> bool:
        """False where each scan had to count as a patient of its own."""
        return self.record is None or self.record.patients_known

    @cached_property
    def warnings(self) -> list[tuple[int, int, str]]:
        """(first step, last step, sentence) of each kind of warning in the log; its last wording stands for all."""
        found: dict[str, tuple[int, int, str]] = {}
        for line in [*self.train, *self.monitor]:
            if line.get("warning"):
                kind = str(line["warning"]).split(":")[0].split("(")[0]
                first = found.get(kind, (line["step"], 0, ""))[0]
                found[kind] = (first, line["step"], str(line["warning"]))
        return list(found.values())

    @property
    def still_warned(self) -> bool:
        """Whether the last look at the features ended in a warning."""
        return bool(self.monitor and self.monitor[-1].get("warning"))


def read_facts(run: str | Path) -> Facts:
    """Read a run folder; one that holds no run is refused."""
    folder = RunFolder(run)
    if not folder.recipe.is_file():
        raise ScanlearnError(f"{run} holds no run: give a folder that `scanlearn pretrain` or `finetune` wrote.")
    card = _json(folder.encoder / CARD)
    metrics = folder.read_metrics()
    notes, parameters = card.get("notes"), card.get("parameters")
    return Facts(
        run=folder,
        recipe=read_yaml(folder.recipe, f"The recipe.yaml of {folder.path.name}"),
        environment=_json(folder.environment),
        notes=notes if isinstance(notes, dict) else {},
        parameters=parameters if isinstance(parameters, int) else 0,
        train=[line for line in metrics if line["kind"] == "train"],
        monitor=[line for line in metrics if line["kind"] == "monitor"],
        validation=[line for line in metrics if line["kind"] == "validation"],
        results=_json(folder.results),
        record=read_record(folder),
    )


def _json(path: Path) -> dict[str, Any]:
    return read_json(path, f"The {path.name} of the run") if path.is_file() else {}


def origin(facts: Facts) -> Facts | None:
    """The run that the weights came from, if a run of that name on the same store lies beside this one."""
    beside = facts.run.path.resolve().parent / facts.init
    if facts.init == "none" or beside == facts.run.path.resolve() or not (beside / "recipe.yaml").is_file():
        return None
    try:
        found = read_facts(beside)
    except ScanlearnError:  # whatever lies there is not that run any more
        return None
    same = found.environment.get("store") == facts.environment.get("store")
    return found if same and facts.environment.get("store") else None
