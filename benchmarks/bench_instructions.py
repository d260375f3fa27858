"""
Instructions of an operation in the native part, by callgrind: what a busy machine cannot blur.

Run it once for each build that is to be compared; valgrind must be installed.
"""

import os
import re
import subprocess
import sys

import accelerator

TIMES = 10_000
FUNCTIONS = {
    "object hit": "area_get",
    "copied hit": "area_get",
    "set": "area_set",
    "delete": "area_delete",
    "mget": "area_mget",
}


def repeat(what: str) -> None:
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
    for _ in range(TIMES):
        calls[what]()
    os._exit(0)


def main() -> None:
    """Print a line for each."""
    for what, function in FUNCTIONS.items():
        command = ["valgrind", "--tool=callgrind", f"--toggle-collect={function}"]
        command += ["--callgrind-out-file=/dev/null", sys.executable, __file__, what]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        [collected] = re.findall(r"Collected : (\d+)", done.stderr)
        print(f"{what:<12} {int(collected) / TIMES:8.1f}")


if __name__ == "__main__":
    if sys.argv[1:]:
        repeat(sys.argv[1])
    main()
