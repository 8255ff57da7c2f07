"""The metrics through Hugging Face evaluate, in a process of its own: no network, an empty cache."""

import json
import os
import subprocess
import sys

import pytest

from medvlm.evaluate.metrics import METRICS, Options, score

PREDICTIONS = ["No pleural effusion.", "", "A heart\nof normal size"]
REFERENCES = [["No effusion.", "No pleural effusion"], ["Clear lungs."], ["The heart is of normal size."]]

SCRIPT = """
import importlib, json, sys
import evaluate, medvlm

from medvlm.errors import UsageError
from medvlm.evaluate.metrics import METRICS

def refused(several):
    try:
        evaluate.load(medvlm.metric_path("bleu")).compute(**several, tokeniser="13a")
    except UsageError as error:
        return str(error)

def in_memory(path):
    # Without evaluate's files, whose locks take 0.2 s a metric.
    return evaluate.load(path, keep_in_memory=True)

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
    "single": [in_memory(path).compute(**single) for path in paths],
    "constructed": [metric.compute(**several) for metric in made],
    "combined": evaluate.combine(paths).compute(**several),
    "combined_objects": evaluate.combine(made).compute(**several),
    "added": added.compute(),
    "settings": [
        in_memory(path).compute(**several, tokenizer="13a", case="mixed", stem=True) for path in paths
    ],
    "combined_settings": evaluate.combine(paths).compute(**several, tokenizer="13a", case="mixed", stem=True),
    "others": {
        name: in_memory(medvlm.metric_path(name)).compute(**several, answer_type=["open", "closed", "open"])
        for name in ("vqa", "findings")
    },
    "refused": refused(several),
    "names": [evaluate.load(medvlm.metric_path(name)).name for name in METRICS.names()],
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


TEXT = ["bleu", "rouge", "cider"]


def expected(references, options=None):
    return [score([name], PREDICTIONS, references, options=options).values for name in TEXT]


@pytest.mark.parametrize("way", ["loaded", "constructed"])
def test_each_metric_gives_what_score_gives(computed, way):
    assert computed[way] == expected(REFERENCES)


def test_one_reference_may_be_a_plain_text(computed):
    assert computed["single"] == expected([own[:1] for own in REFERENCES])


@pytest.mark.parametrize("way", ["combined", "combined_objects"])
def test_combined(computed, way):
    assert computed[way] == score(TEXT, PREDICTIONS, REFERENCES).values


def test_added_one_by_one(computed):
    assert computed["added"] == score(["cider"], PREDICTIONS, REFERENCES).values


def test_settings(computed):
    options = Options(tokenizer="13a", case="mixed", stem=True)
    assert computed["settings"] == expected(REFERENCES, options) != computed["loaded"]
    assert computed["combined_settings"] == score(TEXT, PREDICTIONS, REFERENCES, options=options).values


@pytest.mark.parametrize("name", ["vqa", "findings"])
def test_columns_reach_the_metrics_that_read_them(computed, name):
    rows = [{"answer_type": kind} for kind in ("open", "closed", "open")]
    assert computed["others"][name] == score([name], PREDICTIONS, REFERENCES, rows).values


def test_a_misspelt_setting_is_no_column(computed):
    assert '"tokeniser" is no setting' in computed["refused"]


def test_every_metric_loads_without_its_own_package(computed):
    assert computed["names"] == METRICS.names()
