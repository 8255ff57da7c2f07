"""(a) Wall time of `medvlm --help` against importing typer and rich alone; goal: at most 2.5 times.

python tests/benchmarks/cli_help.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

ROUNDS = 21
COMMANDS = {
    "medvlm --help": [sys.executable, "-m", "medvlm", "--help"],
    "import typer, rich.console, rich.table": [sys.executable, "-c", "import typer, rich.console, rich.table"],
}


def seconds(command: list[str]) -> float:
    """Return the wall time of one run."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Run the two in turn, so that a busy moment hits both, and print their medians."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(listed[1:]) for name, listed in times.items()}
    ours, bare = medians.values()
    print(json.dumps({"median_seconds": medians, "ratio": round(ours / bare, 2), "rounds": ROUNDS - 1}, indent=2))


if __name__ == "__main__":
    main()
