"""`lender log`: what ran, told from the receipts, and whether they are as they were written."""

import os
import select
import signal
import subprocess
import time

from owner_machine import ALICE, BOUND_S, LENDER, Machine, grant, machine

from lender.protocol.signature import Signer, seed_from_entropy
from lender.state.receipts import ReceiptLog

__all__ = ["machine"]

RECEIPT = {
    "lease": "L",
    "job": "J-7Q2mAx91",
    "job_name": "fold-42",
    "submitter": ALICE,
    "workload": "render",
    "runtime": "wasm",
    "program_sha256": "9f86" * 16,
    "grant": "G-1",
    "attempt": 1,
    "outcome": "revoked",
    "ended": "you revoked",
    "tasks_run": 12,
    "tasks_failed": 1,
    "started_at": 1_800_000_000.0,
    "ended_at": 1_800_000_060.0,
    "cpu_s": 42.0,
    "bytes_in": 10 << 20,
    "bytes_out": 4096,
}


def test_log_tells_what_ran_for_whom_and_why_it_ended(machine: Machine) -> None:
    assert machine.lender("log").stdout == "Nothing has run here.\n"
    grant(machine.state, "G-1")
    log = ReceiptLog(machine.state.receipts)
    log.append(RECEIPT)
    log.append({**RECEIPT, "job": "J-other123"})
    done = machine.lender("log", "J-7Q2")
    assert "J-7Q2mAx91 fold-42  receipt 1, attempt 1" in done.stdout
    assert "started for alice under grant G-1 (you agreed" in done.stdout
    assert "program sha256:9f869f869f86…" in done.stdout
    assert "in 10 MiB · out 4 KiB" in done.stdout
    assert "CPU 42.0 s · 12 tasks, 1 failed" in done.stdout
    assert "revoked: you revoked" in done.stdout
    assert "J-other" not in done.stdout
    assert "(1 earlier: lender log --last N)" in machine.lender("log", "--last", "1").stdout
    assert machine.lender("log", "J-none").returncode == 1
    told = machine.json("log")[1]
    assert [r["job"] for r in told["receipts"]] == ["J-7Q2mAx91", "J-other123"]


def test_log_shows_an_edited_line(machine: Machine) -> None:
    log = ReceiptLog(machine.state.receipts)
    for _ in range(3):
        log.append(RECEIPT)
    assert machine.lender("log", "--verify").returncode == 0
    content = machine.state.receipts.read_text()
    machine.state.receipts.write_text(content.replace('"cpu_s":42.0', '"cpu_s":1.0', 1))
    done = machine.lender("log", "--verify")
    assert done.returncode == 1
    assert "✗ line 1: edited" in done.stdout
    assert "✗ line 1: edited" in machine.lender("log").stdout


def test_log_verify_checks_signatures_and_says_what_it_could_not_compare(machine: Machine) -> None:
    seed = seed_from_entropy(b"o" * 32)
    machine.state.identity.write_bytes(seed)
    log = ReceiptLog(machine.state.receipts, Signer(seed))
    for number in range(3):
        log.append({**RECEIPT, "job": f"J-{number}000000"})
    done = machine.lender("log", "verify")
    assert done.returncode == 0
    assert "✓ 3 receipts: each follows the one before it" in done.stdout
    assert "✓ 3 signed by this machine" in done.stdout
    assert "! not compared with the published head" in done.stdout
    code, told = machine.json("log", "verify")
    assert (code, told["schema"], told["signed"]) == (0, "lender.log/2", 3)
    forged = ReceiptLog(machine.state.path / "forged.jsonl", Signer(seed_from_entropy(b"t" * 32)))
    for _ in range(3):
        forged.append(RECEIPT)
    for end in ("jsonl", "head"):
        (machine.state.path / f"forged.{end}").replace(machine.state.path / f"receipts.{end}")
    done = machine.lender("log", "verify")
    assert done.returncode == 1
    assert done.stdout.count("✗") == 1
    assert "no receipt is signed with this machine's own key" in done.stdout


def test_log_prints_a_receipt_in_full_and_an_early_one_as_far_as_it_goes(machine: Machine) -> None:
    grant(machine.state, "G-1")
    log = ReceiptLog(machine.state.receipts)
    log.append({
        **RECEIPT, "inputs": [["x.npz", "ab" * 32]], "memory_peak_bytes": 1 << 30, "gpu_s": 0.0,
        "vram_peak_bytes": 0, "network_attempts_blocked": 2, "energy_wh": 3.1,
        "energy_method": "estimate: RAPL",
    })  # fmt: skip
    log.append({**RECEIPT, "job": "J-early000", "network_attempts_blocked": -1})
    log.append({
        **RECEIPT, "job": "J-net00000", "network": ["a.org", "*.b.org:22"],
        "network_in_bytes": 3 << 20, "network_out_bytes": 2048, "network_attempts_blocked": 1,
    })  # fmt: skip
    few = {"lease": "L", "job": "J-few00000", "submitter": ALICE, "workload": "render",
           "grant": "G-9", "outcome": "revoked", "ended_at": 1_800_000_000.0}  # fmt: skip
    log.append(few)
    told = machine.lender("log", "J-7Q2").stdout
    assert "program sha256:9f869f869f86… · in x.npz 10 MiB · out 4 KiB" in told
    assert "files: scratch only · network: blocked, 2 attempts · GPU: not used" in told
    assert "CPU 42.0 s · peak 1 GiB · 3.1 Wh (estimate: RAPL)" in told
    reached = "network: a.org, *.b.org:22 by proxy, in 3 MiB, out 2 KiB, 1 attempt blocked"
    assert reached in machine.lender("log", "J-net").stdout
    assert "attempts could not be counted" in machine.lender("log", "J-early").stdout
    early = machine.lender("log", "J-few")
    assert early.returncode == 0
    assert "  started for alice under grant G-9\n" in early.stdout
    assert "?" not in early.stdout


def test_log_since_and_follow(machine: Machine) -> None:
    log = ReceiptLog(machine.state.receipts)
    log.append({**RECEIPT, "ended_at": time.time() - 7200})
    log.append({**RECEIPT, "job": "J-now00000", "ended_at": time.time() - 60})
    told = machine.lender("log", "--since", "1h").stdout
    assert "J-now00000" in told
    assert "J-7Q2" not in told
    assert machine.lender("log", "--since", "soon").returncode == 2
    following = subprocess.Popen(
        [str(LENDER), "log", "-f"],
        env={**os.environ, "LENDER_STATE": str(machine.state.path)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert following.stdout is not None
    stop = time.monotonic() + 20
    while not select.select([following.stdout], [], [], 0.2)[0] and time.monotonic() < stop:
        log.append({**RECEIPT, "job": "J-new00000"})  # until it has begun to look
    line = following.stdout.readline()
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=BOUND_S)
    assert "J-new00000" in line
    assert following.returncode == -signal.SIGINT  # of which a shell makes 130
