"""The metrics through Hugging Face evaluate, in a process of its own: no network, an empty cache."""

import json
import os
import subprocess
import sys

import pytest

from medvlm.evaluate.metrics import METRICS, score

PREDICTIONS = ["No pleural effusion.", "", "A heart\nof normal size"]
REFERENCES = [["No effusion.", "No pleural effusion"], ["Clear lungs."], ["The heart is of normal size."]]

SCRIPT = """
import importlib, json, sys
import evaluate, medvlm

predictions, references = json.loads(sys.argv[1])
names = ["bleu", "rouge", "cider"]
paths = [medvlm.metric_path(name) for name in names]
made = [getattr(importlib.import_module(f"medvlm.evaluate.hf.{n}.{n}"), n.capitalize())() for n in names]
several = {"predictions": predictions, "references": references}
single = {"predictions": predictions, "references": [own[0] for own in references]}
added = evaluate.load(paths[2])
for prediction, own in zip(predictions, references):
    added.add(prediction=prediction, reference=own)
print(json.dumps({
    "loaded": [evaluate.load(path).compute(**several) for path in paths],
    "single": [evaluate.load(path).compute(**single) for path in paths],
    "constructed": [metric.compute(**several) for metric in made],
    "combined": evaluate.combine(paths).compute(**several),
    "combined_objects": evaluate.combine(made).compute(**several),
    "added": added.compute(),
}))
"""


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    home = tmp_path_factory.mktemp("hf_home")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([PREDICTIONS, REFERENCES])],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def expected(references):
    return [score([name], PREDICTIONS, references).values for name in METRICS.names()]


@pytest.mark.parametrize("way", ["loaded", "constructed"])
def test_each_metric_gives_what_score_gives(computed, way):
    assert computed[way] == expected(REFERENCES)


def test_one_reference_may_be_a_plain_text(computed):
    assert computed["single"] == expected([own[:1] for own in REFERENCES])


@pytest.mark.parametrize("way", ["combined", "combined_objects"])
def test_combined(computed, way):
    assert computed[way] == score(METRICS.names(), PREDICTIONS, REFERENCES).values


def test_added_one_by_one(computed):
    assert computed["added"] == score(["cider"], PREDICTIONS, REFERENCES).values
