"""Extra peak memory of a function: the process's peak resident set beyond what it held before.

Use it in a fresh process, after a warm-up that brings in code and thread pools: what an earlier
call has freed, but the allocator kept, would hide what the next one needs.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

MIB = 2**20


def extra_peak(run: Callable[[], object]) -> float:
    """Peak resident set while ``run`` runs, beyond the resident set before it, in MiB.

    Linux only. Where the kernel does not let the peak be reset, peaks below an earlier one are not
    seen.
    """
    gc.collect()
    _trim()
    before = _status("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: resets the peak resident set
    except OSError:
        before = max(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    kept = run()  # its result counts: it is there at the end
    peak = _status("VmHWM")
    del kept
    return max(0, peak - before) / MIB


def _trim() -> None:
    """Give freed memory back to the system, where the C library is glibc."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def _status(key: str) -> int:
    """A field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}; peak memory is measured on Linux only")


def in_fresh_process(script: str | Path, arguments: Sequence[str], live: bool = False) -> float:
    """Run a Python script that prints a figure in MiB as its last line; return the figure.

    Args:
        script: Path of the script.
        arguments: Its arguments.
        live: Let the C library (glibc) give freed memory back at once, so that the peak is what is
            in use at a time. By default it keeps some, by a rule that depends on the order of
            requests; this is what a user sees, and it varies from run to run.

    Raises:
        RuntimeError: If the script fails.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    if live:
        environment["MALLOC_MMAP_THRESHOLD_"] = str(2**17)  # man 3 mallopt: switches the rule off
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{script} {list(arguments)} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])
