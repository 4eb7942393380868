"""What a call takes at its peak beyond what was there before, as the operating system counts it; in a fresh process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

needed = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not tell peaks apart")

PEAK = """
def status(key):
    (line,) = [line for line in open("/proc/self/status") if line.startswith(key)]
    return 1024 * int(line.split()[1])

def peak(call):
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak
    before = status("VmRSS")
    call()
    return status("VmHWM") - before
"""


def run(program, *arguments):
    """The number or numbers that a program prints as JSON; it can call ``peak(call)``, which gives bytes."""
    exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is given back
    command = [sys.executable, "-c", PEAK + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=exact)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
