"""A receipt in words: one line of a list, or all that it says."""

from typing import Any

from lender.cli.words import count, duration, key, moment, printable, size

Receipt = dict[str, Any]


def in_short(receipt: Receipt, names: dict[str, str]) -> str:
    """One line: when, which job, for whom, what, and how it ended."""
    if receipt.get("kind") == "repair":
        return f"! {receipt.get('seq')}  the log was repaired: {_text(receipt, 'note')}"
    parts = [
        _moment(receipt, "ended_at"),
        _text(receipt, "job"),
        f"for {_who(receipt, names)}",
        _text(receipt, "workload"),
        _text(receipt, "outcome"),
    ]
    if "tasks_run" in receipt:
        parts.append(count(int(_number(receipt, "tasks_run")), "task"))
    return "  ".join(parts)


def in_full(receipt: Receipt, names: dict[str, str], agreed: dict[str, float]) -> list[str]:
    """All of it; what an earlier version or a revoke without lenderd did not note is left out."""
    if receipt.get("kind") == "repair":
        return [in_short(receipt, names)]
    grant = _text(receipt, "grant")
    when = f" (you agreed {moment(agreed[grant])})" if grant in agreed else ""
    title = f"{_text(receipt, 'job')} {_text(receipt, 'job_name')}".rstrip()
    attempt = f", attempt {receipt['attempt']}" if "attempt" in receipt else ""
    started = (
        "started" if not receipt.get("started_at") else f"{_moment(receipt, 'started_at')} started"
    )
    used = [*_processor(receipt), *_tasks(receipt)]
    ended = _text(receipt, "ended")
    why = f": {ended}" if ended else ""
    lines = [
        f"{title}  receipt {receipt.get('seq')}{attempt}",
        f"  {started} for {_who(receipt, names)} under grant {grant}{when}",
        "  " + " · ".join([*_program(receipt), *_moved(receipt)]),
        "  "
        + " · ".join(
            ["files: scratch only", *_network(receipt), *_gpu(receipt), *_devices(receipt)]
        ),
    ]
    if used:
        lines.append("  " + " · ".join(used))
    if trace := _text(receipt, "traceparent"):
        lines.append(f"  the submitter's trace: {trace}")
    lines.append(f"  ended {_moment(receipt, 'ended_at')}: {_text(receipt, 'outcome')}{why}")
    return lines


def _program(receipt: Receipt) -> list[str]:
    runtime = _text(receipt, "runtime")
    parts = [f"{_text(receipt, 'workload')}" + (f" ({runtime})" if runtime else "")]
    if program := _text(receipt, "program_sha256"):
        parts.append(f"program sha256:{program[:12]}…")
    return parts


def _moved(receipt: Receipt) -> list[str]:
    parts = []
    inputs = receipt.get("inputs")
    names = [printable(str(one[0])) for one in inputs if one] if isinstance(inputs, list) else []
    if "bytes_in" in receipt:
        parts.append(" ".join(["in", *names, size(_number(receipt, "bytes_in"))]))
    if "bytes_out" in receipt:
        parts.append(f"out {size(_number(receipt, 'bytes_out'))}")
    return parts


def _network(receipt: Receipt) -> list[str]:
    attempts, reach = receipt.get("network_attempts_blocked"), receipt.get("network")
    if isinstance(reach, list) and reach:
        return [_reached([str(place) for place in reach], receipt)]
    if not isinstance(attempts, int):
        return ["network: blocked"]
    if attempts < 0:
        return ["network: blocked, attempts could not be counted"]
    return [f"network: blocked, {count(attempts, 'attempt')}"]


def _reached(reach: list[str], receipt: Receipt) -> str:
    moved = [size(_number(receipt, f"network_{way}_bytes")) for way in ("in", "out")]
    attempts = int(_number(receipt, "network_attempts_blocked"))
    blocked = f", {count(attempts, 'attempt')} blocked" if attempts > 0 else ""
    places = printable(", ".join(reach))
    return f"network: {places} by proxy, in {moved[0]}, out {moved[1]}{blocked}"


def _gpu(receipt: Receipt) -> list[str]:
    if "gpu_s" not in receipt:
        return []
    gpu_s, vram_bytes = _number(receipt, "gpu_s"), _number(receipt, "vram_peak_bytes")
    if not gpu_s and not vram_bytes:
        return ["GPU: not used"]
    return [f"GPU {duration(gpu_s)}, peak {size(vram_bytes)} of its memory"]


def _devices(receipt: Receipt) -> list[str]:
    devices = receipt.get("devices")
    if not isinstance(devices, list) or not devices:
        return []
    return [f"device: {printable(', '.join(map(str, devices)))}"]


def _processor(receipt: Receipt) -> list[str]:
    parts = []
    if "cpu_s" in receipt:
        method = _text(receipt, "cpu_method")
        parts.append(
            f"CPU {duration(_number(receipt, 'cpu_s'))}" + (f" ({method})" if method else "")
        )
    if peak_bytes := _number(receipt, "memory_peak_bytes"):
        parts.append(f"peak {size(peak_bytes)}")
    if energy_wh := _number(receipt, "energy_wh"):
        method = _text(receipt, "energy_method").removeprefix("estimate: ")
        parts.append(f"{energy_wh:.2g} Wh (estimate{': ' + method if method else ''})")
    elif "energy_method" in receipt:
        parts.append(f"energy: {_text(receipt, 'energy_method')}")
    return parts


def _tasks(receipt: Receipt) -> list[str]:
    if "tasks_run" not in receipt:
        return []
    failed = int(_number(receipt, "tasks_failed"))
    return [f"{count(int(_number(receipt, 'tasks_run')), 'task')}, {failed} failed"]


def _who(receipt: Receipt, names: dict[str, str]) -> str:
    submitter = _text(receipt, "submitter")
    return names.get(submitter) or key(submitter)


def _text(receipt: Receipt, field: str) -> str:
    return printable(str(receipt.get(field) or ""))


def _number(receipt: Receipt, field: str) -> float:
    value = receipt.get(field)
    return value if isinstance(value, int | float) else 0


def _moment(receipt: Receipt, field: str) -> str:
    return moment(_number(receipt, field)) if _number(receipt, field) else "?"
