"""
Instructions of an operation in the native part, by callgrind: what a busy machine cannot blur.

Run it once for each build that is to be compared; valgrind must be installed.  Of each operation
two runs are made, of which one does it more often: what is done once, such as to attach, drops out.
"""

import os
import re
import subprocess
import sys

import accelerator

FEW, MANY = 2_000, 12_000
FUNCTIONS = {
    "object hit": "area_get",
    "copied hit": "area_get",
    "set": "area_set",
    "delete": "area_delete",
    "mget": "area_mget",
}


def repeat(what: str, times: int) -> None:
    """Do one thing again and again; what prepares it is a few calls more."""
    options = {"local_ttl": 3600, "ttl_jitter_ratio": None}
    cache: accelerator.LevelCache[str, object] = accelerator.LevelCache("area", **options)
    copied: accelerator.LevelCache[str, object] = accelerator.LevelCache(
        "copied", objects="copy", **options
    )
    keys = [f"key {n}" for n in range(20)]
    cache.mset({key: ("value", key) for key in [*keys, "object"]})
    copied.set("bytes", b"x" * 100)
    calls = {
        "object hit": lambda: cache.get("object"),
        "copied hit": lambda: copied.get("bytes"),
        "set": lambda: cache.set("bytes", b"y" * 100),
        "delete": lambda: cache.delete("object"),
        "mget": lambda: cache.mget(keys),
    }
    for _ in range(times):
        calls[what]()
    os._exit(0)


def collected(what: str, times: int) -> int:
    """Count the instructions of one run."""
    command = ["valgrind", "--tool=callgrind", f"--toggle-collect={FUNCTIONS[what]}"]
    command += ["--callgrind-out-file=/dev/null", sys.executable, __file__, what, str(times)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    [number] = re.findall(r"Collected : (\d+)", done.stderr)
    return int(number)


def main() -> None:
    """Print a line for each."""
    for what in FUNCTIONS:
        difference = collected(what, MANY) - collected(what, FEW)
        print(f"{what:<12} {difference / (MANY - FEW):8.1f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        repeat(sys.argv[1], int(sys.argv[2]))
    main()
