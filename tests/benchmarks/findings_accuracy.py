"""How far the labels of `findings` agree with hand-labelled sentences, by engine of negation; and how fast they come.

python tests/benchmarks/findings_accuracy.py [TABLE.tsv ...]

"development" (tests/evaluate/labelled_sentences.tsv) is what the rules were written with in view: it flatters them.
What they do on other reports is measured on tests/evaluate/fresh_sentences.tsv, where it is there, or on the tables
named, with the same columns.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "evaluate"))
from labelled_findings import DEVELOPMENT, FRESH, agreement, labelled

from medvlm.evaluate.findings import ENGINES
from medvlm.evaluate.findings.labels import forget, reading

WORDS = 38
SIZES = (6250, 12500, 25000)


def accuracy(table: Path, negation: str) -> dict[str, object]:
    """Return the agreement of one engine on one table."""
    found = agreement(labelled(table), negation)
    return {
        "sentences": found.n,
        "mentions": found.mentions,
        "mention_f1": round(found.mention_f1, 4),
        "positive_or_uncertain_f1": round(found.positive_f1, 4),
        "exact_sentences": round(found.exact, 4),
        "sides": round(found.sides, 4),
        "f1_by_observation": {name: [n, round(value, 3)] for name, (n, value) in found.by_observation.items()},
    }


def reports(n: int, repeated: bool) -> list[str]:
    """Return n reports of about 38 words; of sentences that repeat, or each with a number of its own."""
    rng = random.Random(0)
    sentences = [row.sentence for row in labelled()]
    found = []
    for number in range(n):
        report: list[str] = []
        while sum(len(sentence.split()) for sentence in report) < WORDS:
            sentence = rng.choice(sentences)
            report.append(sentence if repeated else f"{sentence[:-1]} {number}-{len(report)}.")
        found.append(" ".join(report))
    return found


def seconds(repeated: bool) -> dict[int, float]:
    """Return the processor seconds to read reports, by their number."""
    found = {}
    for n in SIZES:
        texts = reports(n, repeated)
        forget()
        started = time.process_time()
        for text in texts:
            reading(text)
        found[n] = round(time.process_time() - started, 2)
    return found


def main() -> None:
    """Print everything as JSON."""
    tables = {"development": DEVELOPMENT} | ({"fresh": FRESH} if FRESH.exists() else {})
    tables |= {name: Path(name) for name in sys.argv[1:]}
    result = {
        "accuracy": {name: {each: accuracy(table, each) for each in ENGINES} for name, table in tables.items()},
        "seconds": {"sentences repeat": seconds(True), "every sentence is new": seconds(False)},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
