"""The metrics of other packages: against stand-ins with the packages' own signatures, and really where installed."""

from __future__ import annotations

import inspect
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from medvlm.errors import AccessError, InputError, MissingExtraError
from medvlm.evaluate import adapters
from medvlm.evaluate.adapters import BertScore, CheXbert, RadGraph
from medvlm.evaluate.metrics import Segments, aggregate, score
from medvlm.io import write_json

NAMES = list(adapters._OBSERVATIONS)


class F1RadGraph:
    """Radgraph 0.1.18's, with words for entities."""

    made: list[str] = []  # noqa: RUF012

    def __init__(self, reward_level: str, model_type: str | None = None, **kwargs: Any) -> None:
        print("Using device: cpu")
        assert reward_level == "all"
        self.made.append(str(model_type))

    def __call__(self, refs: list[str], hyps: list[str]) -> Any:
        shared = [len(set(ref.split()) & set(hyp.split())) / 10 for ref, hyp in zip(refs, hyps, strict=True)]
        rewards = (shared, [value / 2 for value in shared], [value / 4 for value in shared])
        return tuple(map(np.mean, rewards)), rewards, [], []


class F1CheXbert:
    """f1chexbert 0.0.2's, which takes an observation's whole name for its mention; without a model."""

    target_names = NAMES

    def __init__(
        self, refs_filename: str | None = None, hyps_filename: str | None = None, device: Any = None, **kwargs: Any
    ) -> None:
        self.tokenizer = type("Tokenizer", (), {"encode_plus": None})()

    def get_label(self, report: str, mode: str = "rrg") -> list[int]:
        return [int(name.lower() in report.lower()) for name in NAMES]


class BERTScorer:
    """bert-score 0.3.13's, with the share of equal letters for similarity."""

    def __init__(self, model_type: str | None = None, num_layers: int | None = None) -> None:
        self.model_type = model_type

    def score(self, cands: list[str], refs: list[list[str]]) -> tuple[np.ndarray, ...]:
        best = [max(float(cand == ref) for ref in own) for cand, own in zip(cands, refs, strict=True)]
        return tuple(np.array(best) * share for share in (1.0, 0.5, 0.25))


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "_told", set())
    monkeypatch.setattr(F1RadGraph, "made", [])


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, ModuleType]:
    modules = {}
    for name, owner in (("radgraph", F1RadGraph), ("f1chexbert", F1CheXbert), ("bert_score", BERTScorer)):
        modules[name] = ModuleType(name)
        modules[name].__spec__ = ModuleSpec(name, None)
        setattr(modules[name], owner.__name__, owner)
        monkeypatch.setitem(sys.modules, name, modules[name])
    inner = ModuleType("f1chexbert.f1chexbert")
    (tmp_path / "chexbert.pth").touch()
    inner.CACHE_DIR = str(tmp_path)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "f1chexbert.f1chexbert", inner)
    return modules


@pytest.mark.usefixtures("stand_ins")
def test_radgraph_takes_the_best_reference_and_says_what_it_downloads(capsys: pytest.CaptureFixture[str]) -> None:
    found = score(["radgraph"], ["a b", "c"], [["a", "x", "a b"], ["d"]])
    assert found.values == pytest.approx({"radgraph_simple": 0.1, "radgraph_partial": 0.05, "radgraph_complete": 0.025})
    assert found.per_segment["radgraph_simple"].tolist() == [0.2, 0]
    assert F1RadGraph.made == ["radgraph-xl"]
    said = capsys.readouterr()
    assert said.out == ""
    assert "downloads radgraph-xl" in said.err
    assert "0.4 GB" in said.err
    assert found.signatures["radgraph"].startswith("radgraph|model:radgraph-xl|")
    score(["radgraph"], ["a"], [["a"]])
    assert capsys.readouterr().err == ""


def chexbert_by_hand(pairs: list[tuple[set[str], set[str]]], names: list[str]) -> tuple[float, float]:
    """Return micro and macro F1 of predicted and true names, class by class."""
    counts = [[0, 0, 0] for _ in names]
    for ours, theirs in pairs:
        for count, name in zip(counts, names, strict=True):
            count[0] += name in ours and name in theirs
            count[1] += name in ours and name not in theirs
            count[2] += name in theirs and name not in ours
    each = [2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0 for tp, fp, fn in counts]
    tp, fp, fn = (sum(column) for column in zip(*counts, strict=True))
    return 2 * tp / (2 * tp + fp + fn), sum(each) / len(each)


@pytest.mark.usefixtures("stand_ins")
def test_chexbert_against_counting_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    predictions = ["Edema and fracture", "Cardiomegaly. Pleural effusion", "nothing", "No finding"]
    references = [["edema", "x"], ["cardiomegaly", "Pleural effusion, pneumonia"], ["fracture"], ["no finding"]]
    found = score(["chexbert"], predictions, references)
    pairs = [
        ({"Edema", "Fracture"}, {"Edema"}),
        ({"Cardiomegaly", "Pleural Effusion"}, {"Cardiomegaly"}),
        (set[str](), {"Fracture"}),
        ({"No Finding"}, {"No Finding"}),
    ]
    five = ["Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion"]
    expected = [*chexbert_by_hand(pairs, NAMES), *chexbert_by_hand(pairs, five)]
    assert list(found.values.values()) == pytest.approx(expected)
    assert "chexbert.pth" in capsys.readouterr().err


@pytest.mark.usefixtures("stand_ins")
def test_chexbert_of_no_segment_is_undefined() -> None:
    metric = CheXbert()
    statistics = metric.statistics(Segments(["edema"], [["edema"]]))
    assert aggregate(metric, statistics, np.zeros(0, np.int64)) == {}
    assert aggregate(metric, statistics)["chexbert_micro_f1"] == 1


def test_chexbert_with_other_observations(stand_ins: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F1CheXbert, "target_names", NAMES[::-1])
    with pytest.raises(InputError, match="other observations"):
        score(["chexbert"], ["x"], [["y"]])


@pytest.mark.usefixtures("stand_ins")
def test_bertscore_of_several_references(capsys: pytest.CaptureFixture[str]) -> None:
    found = score(["bertscore"], ["a", "b"], [["x", "a"], ["y"]])
    assert found.values == {"bertscore_precision": 0.5, "bertscore_recall": 0.25, "bertscore_f1": 0.125}
    assert "roberta-large" in found.signatures["bertscore"]
    assert "1.4 GB" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [RadGraph, CheXbert, BertScore])
def test_a_package_that_is_not_there(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'medvlm\[{kind.name}\]'"):
        kind()


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(
    ("problem", "kind", "words"),
    [
        (ModuleNotFoundError("no sklearn"), MissingExtraError, "medvlm\\[chexbert\\]"),
        (ImportError("cannot import\nname 'x'"), InputError, "does not fit the other packages \\(cannot import name"),
    ],
)
def test_a_package_whose_own_needs_are_not_met(
    problem: Exception, kind: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(name: str) -> None:
        raise problem

    metric = CheXbert()
    monkeypatch.setattr("importlib.import_module", failing)
    with pytest.raises(kind, match=words):
        metric.statistics(Segments(["x"], [["y"]]))


@pytest.mark.parametrize(
    ("name", "owner"), [("radgraph", F1RadGraph), ("chexbert", F1CheXbert), ("bertscore", BERTScorer)]
)
@pytest.mark.usefixtures("stand_ins")
def test_a_model_out_of_reach(name: str, owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Any, *args: Any, **kwargs: Any) -> None:
        raise OSError("We couldn't connect\nto the Hub")

    monkeypatch.setattr(owner, "__init__", failing)
    with pytest.raises(AccessError, match="couldn't connect to the Hub") as caught:
        score([name], ["x"], [["y"]])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("package", "owner", "methods"),
    [
        ("radgraph", F1RadGraph, {"__init__": "__init__", "__call__": "forward"}),
        ("f1chexbert", F1CheXbert, {"__init__": "__init__", "get_label": "get_label"}),
        ("bert_score", BERTScorer, {"__init__": "__init__", "score": "score"}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_stand_ins_are_called_as_the_packages_are(package: str, owner: Any, methods: dict[str, str]) -> None:
    real = getattr(pytest.importorskip(package), owner.__name__)
    for ours, theirs in methods.items():
        names = list(inspect.signature(getattr(owner, ours)).parameters)
        assert set(names) <= set(inspect.signature(getattr(real, theirs)).parameters)


def tiny_roberta(folder: Path) -> Path:
    import torch
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyzĠ.,"
    vocabulary = {token: n for n, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters])}
    tokenizer = RobertaTokenizerFast(vocab=vocabulary, merges=[], model_max_length=64)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    RobertaModel(RobertaConfig(vocab_size=len(vocabulary), max_position_embeddings=70, **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore")
def test_the_real_bertscore_with_a_random_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bert_score = pytest.importorskip("bert_score")
    model = str(tiny_roberta(tmp_path))
    predictions = ["no pleural effusion", "edema", ""]
    references = [["pleural effusion", "no effusion"], ["edema"], ["x"]]
    metric = BertScore(model_type=model, num_layers=2)
    statistics = metric.statistics(Segments(predictions, references))
    assert "downloads" not in capsys.readouterr().err
    expected = bert_score.score(predictions[:2], references[:2], model_type=model, num_layers=2)
    np.testing.assert_allclose(statistics[:2, :3].T, [column.tolist() for column in expected], atol=1e-6)
    assert statistics[2, :3].tolist() == [0, 0, 0]
    assert statistics[1, :3] == pytest.approx([1, 1, 1], abs=1e-5)
    assert (statistics[:, 3] == 1).all()


@pytest.mark.filterwarnings("ignore")
def test_the_real_chexbert_with_a_random_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("f1chexbert")
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "edema", "no", "effusion", "fracture", "the"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    monkeypatch.chdir(tmp_path)
    folder = Path("bert-base-uncased")
    BertTokenizerFast(vocab={word: n for n, word in enumerate(words)}).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    inner = sys.modules["f1chexbert.f1chexbert"]
    monkeypatch.setattr(inner, "CACHE_DIR", str(tmp_path))
    model = inner.bert_labeler(inference=True)
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    torch.save({"model_state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, "chexbert.pth")
    texts = ["edema", "no effusion", "the fracture", "fracture no edema", "effusion", "", "the the the"]
    metric = CheXbert()
    values = aggregate(metric, metric.statistics(Segments(texts, [[text] for text in texts[::-1]])))
    from sklearn.metrics import classification_report

    # As the package's own `forward`, a line of which newer releases of scikit-learn do not take.
    theirs = metric._labeler
    truth, guess = ([np.array(theirs.get_label(text)) for text in own] for own in (texts[::-1], texts))
    expected = []
    for chosen in (np.arange(14), theirs.target_names_5_index):
        report = classification_report([row[chosen] for row in truth], [row[chosen] for row in guess], output_dict=True)
        expected += [report[f"{kind} avg"]["f1-score"] for kind in ("micro", "macro")]
    assert list(values.values()) == pytest.approx(expected)
    assert 0 < values["chexbert_micro_f1"] < 1


def tiny_radgraph(folder: Path) -> None:
    """Write a model of RadGraph's form with random weights, where the package looks for "radgraph-xl"."""
    import torch
    from dotmap import DotMap
    from radgraph.allennlp.data import Vocabulary
    from radgraph.allennlp.modules import text_field_embedders, token_embedders
    from radgraph.dygie.models import dygie
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "edema", "no", "effusion", "fracture", "the", *"ab12"]
    bert = {"model_name": str(folder / "bert"), "max_length": 512}
    BertTokenizerFast(vocab={word: n for n, word in enumerate(words)}).save_pretrained(bert["model_name"])
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(bert["model_name"])
    labels = folder / "radgraph-xl" / "vocabulary"
    labels.mkdir(parents=True)
    (labels / "radgraph-xl__ner_labels.txt").write_text(
        "\nObservation::definitely present\nAnatomy::definitely present\n"
    )
    (labels / "radgraph-xl__relation_labels.txt").write_text("located_at\nmodify\n")
    (labels / "non_padded_namespaces.txt").write_text("*labels\n*tags\n")
    parts = {
        "coref": {"spans_per_word": 0.3, "max_antecedents": 10, "coref_prop": 0},
        "ner": {},
        "relation": {"spans_per_word": 0.5},
        "events": {"trigger_spans_per_word": 0.3, "argument_spans_per_word": 0.8},
    }
    settings = {
        "modules": parts,
        "feature_size": 4,
        "max_span_width": 4,
        "target_task": "relation",
        "feedforward_params": {"num_layers": 1, "hidden_dims": 8, "dropout": 0.0},
        "loss_weights": {"ner": 0.2, "relation": 1.0, "coref": 0.0, "events": 0.0},
    }
    left_out = {
        "type": "dygie",
        "embedder": {"token_embedders": {"bert": bert}},
        "initializer": {},
        "module_initializer": {},
    }
    reader = {"max_span_width": 4, "token_indexers": {"bert": bert}}
    write_json(folder / "radgraph-xl" / "config.json", {"dataset_reader": reader, "model": {**left_out, **settings}})
    with adapters._older_tokenizers():
        vectors = token_embedders.PretrainedTransformerMismatchedEmbedder(**bert)
        embedder = text_field_embedders.BasicTextFieldEmbedder({"bert": vectors})
        model = dygie.DyGIE(Vocabulary.from_files(str(labels), None, None), embedder, **DotMap(settings))
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    torch.save(model.state_dict(), folder / "radgraph-xl" / "weights.th")


@pytest.mark.filterwarnings("ignore")
def test_the_real_radgraph_with_a_random_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("radgraph")
    from transformers import PreTrainedTokenizerBase

    tiny_radgraph(tmp_path)
    monkeypatch.setattr(sys.modules["radgraph.radgraph"], "CACHE_DIR", str(tmp_path))
    predictions = ["no edema", "effusion the fracture", "", "the edema no fracture"]
    references = [["no edema"], ["effusion fracture the", "edema"], ["edema"], ["the edema", "no fracture", "edema"]]
    statistics = RadGraph().statistics(Segments(predictions, references))
    assert not hasattr(PreTrainedTokenizerBase, "encode_plus")
    assert statistics[0].tolist() == [1, 1, 1, 1]
    assert statistics[2].tolist() == [0, 0, 0, 1]
    with adapters._older_tokenizers():
        scorer = package.F1RadGraph(reward_level="partial", model_type="radgraph-xl")
        for prediction, own, row in zip(predictions, references, statistics, strict=True):
            assert row[1] == max(scorer(hyps=[prediction], refs=[reference])[0] for reference in own)
