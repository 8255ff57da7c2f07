"""Seconds and memory of `medvlm eval --predictions` beside pycocoevalcap, as whole processes in turn.

Both score the same pairs with BLEU, ROUGE-L and CIDEr on PTB tokens; pycocoevalcap tokenizes with Java. Each is started
anew, reads the JSONL file, scores and prints. The pairs are made here from a seed: a reference is a stretch of words
from captions or reports, a prediction the same with three words in ten drawn anew.

    python tests/benchmarks/metrics_speed.py
    python tests/benchmarks/metrics_speed.py --n 25000 --texts captions_val2017.json --repeat 3

Printed are wall-clock and processor seconds, the ratio of the peer's to ours, and the peak memory of a process with its
children. Quiet machines give the same ratio by both clocks; on a busy one trust the processor's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

WORDS = 38
# Sentences as reports have them, with places to fill, so that no data set is needed.
SENTENCES = (
    "The {a} lung is clear without focal consolidation .",
    "There is a {s} {a} pleural effusion with adjacent atelectasis .",
    "No pneumothorax or acute osseous abnormality is seen .",
    "The cardiomediastinal silhouette is {s} and unchanged .",
    "Patchy opacities in the {a} lower lobe may represent pneumonia, {n} mm in size .",
    "An endotracheal tube ends {n} cm above the carina .",
    "Degenerative changes of the thoracic spine at T{n} .",
    "Compared with {n}/{n}/2019, the {a} effusion isn't larger (see series {n}) .",
)
FILL = {"a": ("left", "right"), "s": ("small", "moderate", "large", "mildly enlarged", "normal")}

PEER = """
import json, sys
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

rows = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
tokens = PTBTokenizer()
truth = tokens.tokenize({row["id"]: [{"caption": text} for text in row["references"]] for row in rows})
said = tokens.tokenize({row["id"]: [{"caption": row["prediction"]}] for row in rows})
for name, metric in (("BLEU", Bleu(4)), ("ROUGE-L", Rouge()), ("CIDEr", Cider())):
    print(name, metric.compute_score(truth, said)[0])
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds by both clocks, and MB of a process with its children at their peak."""

    wall: float
    processor: float
    peak: float


def words_of(texts: Path | None, generator: random.Random) -> list[str]:
    """Return words in their order: of COCO's file of captions, or of reports made from `SENTENCES`."""
    if texts is not None:
        captions = [row["caption"] for row in json.loads(texts.read_text(encoding="utf-8"))["annotations"]]
        generator.shuffle(captions)
        return " ".join(captions).split()
    found: list[str] = []
    while len(found) < 400_000:
        sentence = generator.choice(SENTENCES)
        while "{n}" in sentence:
            sentence = sentence.replace("{n}", str(generator.randint(1, 12)), 1)
        found += sentence.format(**{key: generator.choice(values) for key, values in FILL.items()}).split()
    return found


def make_pairs(path: Path, n: int, words: Sequence[str], generator: random.Random) -> None:
    """Write `n` rows of a prediction and a reference of `WORDS` words each."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(n):
            start = generator.randrange(len(words) - WORDS)
            reference = words[start : start + WORDS]
            guess = [word if generator.random() < 0.7 else generator.choice(words) for word in reference]
            row = {"id": str(number), "prediction": " ".join(guess), "references": [" ".join(reference)]}
            file.write(json.dumps(row) + "\n")


def cost(command: Sequence[str]) -> Cost:
    """Run `command` to its end and return what it took; its failure is raised with what it said."""
    before = os.times()
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        watched, peak = psutil.Process(process.pid), 0
        while process.poll() is None:
            peak = max(peak, _memory(watched))
            time.sleep(0.02)
        wall = time.perf_counter() - start
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command[:4])} failed:\n{said.read().decode(errors='replace')}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(wall, used, peak / 1e6)


def _memory(process: psutil.Process) -> int:
    """Return the bytes that a process and its children hold now; 0 where it has just ended."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total


def show(label: str, n: int, found: Cost, peer: Cost | None = None) -> None:
    """Print one line of the table."""
    ratio = f"{peer.wall / found.wall:6.1f} {peer.processor / found.processor:6.1f}" if peer else " " * 13
    print(f"{label:<24} {n:>7} {found.wall:8.2f} {found.processor:8.2f} {ratio} {found.peak:8.0f}", flush=True)


def measure(path: Path, n: int, repeat: int, with_peer: bool) -> None:
    """Print what the peer and ours take for the pairs in `path`: of `repeat` runs in turn, each one's quickest."""
    ours = [sys.executable, "-m", "medvlm", "eval", "--predictions", str(path), "--metrics", "bleu,rouge,cider"]
    commands = {"medvlm --bootstrap 0": [*ours, "--bootstrap", "0"], "medvlm --bootstrap 1000": ours}
    if with_peer:
        commands = {"pycocoevalcap": [sys.executable, "-c", PEER, str(path)], **commands}
    found = [{label: cost(command) for label, command in commands.items()} for _ in range(repeat)]
    best = {label: min((one[label] for one in found), key=lambda one: one.wall) for label in commands}
    for label, own in best.items():
        show(label, n, own, best.get("pycocoevalcap") if label.startswith("medvlm") else None)


def main() -> None:
    """Parse, make the pairs, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[6_250, 12_500, 25_000], help="numbers of pairs")
    parser.add_argument("--texts", type=Path, help="COCO's file of captions to take words from; else made reports")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    asked = parser.parse_args()
    generator = random.Random(0)
    words = words_of(asked.texts, generator)
    print(f"{'':<24} {'pairs':>7} {'wall s':>8} {'CPU s':>8} {'x wall':>6} {'x CPU':>6} {'peak MB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for n in asked.n:
            path = Path(folder, f"{n}.jsonl")
            make_pairs(path, n, words, generator)
            measure(path, n, asked.repeat, not asked.no_peer)


if __name__ == "__main__":
    main()
