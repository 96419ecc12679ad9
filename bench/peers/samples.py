"""What was found, run by run, and the rows that come of it. Pure."""

from dataclasses import dataclass, field

from bench.peers.measures import Finding
from bench.rows import Row

RUNS, DURABLE = "runs", "durable"
"""Measures that say how a peer was run, or why not; and what of its tasks outlives a crash."""


@dataclass
class Samples:
    """Findings of all peers so far."""

    _values: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    _notes: dict[tuple[str, str, str], str] = field(default_factory=dict)
    _runs: dict[str, int] = field(default_factory=dict)
    _about: dict[str, str] = field(default_factory=dict)
    _durable: dict[str, str] = field(default_factory=dict)

    def describe(self, system: str, about: str, durable: str) -> None:
        """Say with which versions and in which configuration a peer runs, and what survives."""
        self._runs.setdefault(system, 0)
        self._about[system] = about
        self._durable[system] = durable

    def add(self, system: str, finding: Finding) -> None:
        """Take a value."""
        key = (system, finding.measure, finding.unit)
        self._values.setdefault(key, []).append(finding.value)
        if finding.note:
            self._notes[key] = finding.note

    def ran(self, system: str) -> None:
        """Count a run that was whole."""
        self._runs[system] = self._runs.get(system, 0) + 1

    def failed(self, system: str, why: str) -> None:
        """Say why a peer's run ended early, or why there was none."""
        self._runs.setdefault(system, 0)
        about = self._about.get(system)
        not_whole = "not run" if about is None else f"{about}; a run broke off"
        self._about[system] = f"{not_whole}: {why}"

    def rows(self) -> list[Row]:
        """Return a row for each measure of each peer, and one that says how it was run."""
        rows = []
        for system, runs in self._runs.items():
            rows.append(Row(system, RUNS, "", (float(runs),), self._about.get(system)))
            if durable := self._durable.get(system):
                survives = float(not durable.startswith("no"))
                rows.append(Row(system, DURABLE, "", (survives,), durable))
            rows += [
                Row(system, measure, unit, tuple(values), self._notes.get((system, measure, unit)))
                for (of, measure, unit), values in self._values.items()
                if of == system
            ]
        return rows
