"""A hash of what a ledger holds, to compare two executions of one race bit by bit."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steepest.racing.ledger import Ledger

__all__ = ["content_digest"]


def content_digest(ledger: Ledger) -> str:
    """A hash of everything that was measured and decided, and of nothing that a clock said.

    Arms, settings, runs with their states and hashes, curves, evaluations, weights, selections,
    looks and verdict are in it. When something happened, how long it took, which process did it
    and into how many pieces a curve was cut are not.
    """
    digest = sha256()

    def add(*parts: Any) -> None:
        digest.update(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode() + b"\n")

    meta = ledger.meta()
    add("spec", meta.get("spec"), meta.get("fingerprint"))
    for arm in ledger.arms():
        add("arm", arm)
    for table, order in (("trials", "trial_id"), ("selections", "arm_id"), ("looks", "look")):
        for row in ledger.rows(f"SELECT * FROM {table} ORDER BY {order}"):  # noqa: S608  constants
            add(table, row)
    for run in ledger.runs():
        if run["status"] == "failed":  # it may be cut off anywhere before the failure
            add("run", run["run_id"], "failed")
            continue
        add("run", {key: run[key] for key in sorted(run) if key != "message"})
        for number in ledger.evaluations(run["run_id"]):
            add("evaluation", *number[:3], number.value.hex())
        names = ledger.rows(
            "SELECT DISTINCT name FROM curves WHERE run_id = ? ORDER BY name", run["run_id"]
        )
        for name in (row["name"] for row in names):
            values = ledger.curve(run["run_id"], name)
            add("curve", name, len(values))
            digest.update(values.astype("<f4").tobytes())
    for stored in ledger.stored():
        if stored.kind != "resume":
            add("weights", stored)
    add("verdict", ledger.verdict())
    return digest.hexdigest()
