"""Where models are looked for, and the one line said when they cannot be had."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medvlm.errors import AccessError, InputError
from medvlm.models.load import planned_config
from medvlm.models.locate import TINY_BASE, _weights_pattern, check_weights, is_local, locate, weights_fingerprint
from medvlm.recipe.load import check

GATED = "google/paligemma-3b-pt-448"


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers every question with one status, as the Hub would."""

    status = 200
    code = ""
    wait = 0.0

    def do_HEAD(self) -> None:
        time.sleep(self.wait)
        self.send_response(self.status)
        if self.code:
            self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    Hub.status, Hub.code, Hub.wait = 200, "", 0.0


def finetune(endpoint: str, home: Path, **environment: str) -> tuple[int, str, float]:
    """Run the real command in a process of its own, and return exit code, stderr and seconds."""
    import os

    recipe = home / "r.yaml"
    recipe.write_text(f"name: r\nmodel: {{id: {GATED}}}\ndata: [{{path: none}}]\n", encoding="utf-8")
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", **environment}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "medvlm", "finetune", str(recipe)], env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr, time.monotonic() - started


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [(403, "GatedRepo", "gated"), (401, "", "not logged in"), (503, "", "cannot be reached")],
)
def test_one_line_says_what_to_do(hub: str, tmp_path: Path, status: int, code: str, said: str) -> None:
    Hub.status, Hub.code = status, code
    exit_code, stderr, _ = finetune(hub, tmp_path)
    assert exit_code == 4
    assert len(stderr.strip().splitlines()) == 1
    for part in (said, f"https://huggingface.co/{GATED}", "hf auth login", "model.id=PATH"):
        assert part in stderr


def test_a_hub_that_does_not_answer_is_given_up_in_time(hub: str, tmp_path: Path) -> None:
    Hub.wait = 30.0
    exit_code, stderr, seconds = finetune(hub, tmp_path)
    assert exit_code == 4
    assert "cannot be reached" in stderr
    # The promise is five seconds; the margin is for a busy machine, the hub itself waits thirty.
    assert seconds < 15


def test_nobody_listens(tmp_path: Path) -> None:
    exit_code, stderr, _ = finetune("http://127.0.0.1:9", tmp_path)
    assert exit_code == 4
    assert len(stderr.strip().splitlines()) == 1


def test_offline_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(AccessError, match="HF_HUB_OFFLINE is set"):
        locate(GATED)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "bert", "a/b/c"])
def test_a_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(InputError, match="no folder"):
        locate(name)


def test_folders_without_a_whole_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        locate(str(tmp_path))
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="not JSON"):
        locate(str(tmp_path))
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="lacks weights"):
        locate(str(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x.safetensors"}}', encoding="utf-8")
    with pytest.raises(InputError, match="lacks weights"):
        locate(str(tmp_path))


def test_the_packaged_model_is_small() -> None:
    path = locate(TINY_BASE).path
    assert path is not None
    assert 1e6 < (path / "model.safetensors").stat().st_size <= 6e6


def test_pickled_weights_and_gguf_files_are_whole_bases(tmp_path: Path) -> None:
    folder = tmp_path / "opt"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    assert locate(str(folder)).path == folder
    file = tmp_path / "model.gguf"
    with pytest.raises(InputError, match=r"model\.language_model: no file .*model\.gguf"):
        locate(str(file), key="model.language_model")
    assert not is_local(str(file))
    file.write_bytes(b"GGUF")
    assert locate(str(file)).path == file
    assert is_local(str(file))


def test_every_kind_of_weights_has_a_fingerprint_that_follows_them(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    for name in ("model.gguf", "pytorch_model.bin", "model.safetensors"):
        file = tmp_path / name
        file.write_bytes(b"one")
        path = file if name.endswith(".gguf") else tmp_path
        before = weights_fingerprint(path)
        known = {"model": {"parts": {"language_model": str(path)}, "weights": {"language_model": before}}}
        check_weights(known)
        file.write_bytes(b"two")
        assert weights_fingerprint(path) != before
        with pytest.raises(InputError, match=r"model\.language_model: .* other weights than when this run was trained"):
            check_weights(known)


@pytest.mark.parametrize(
    ("files", "pattern"),
    [
        (["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"], "pytorch_model*.bin"),
        (["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"], "pytorch_model*.bin"),
        (["model.safetensors", "pytorch_model.bin"], "model*.safetensors"),
        (["model.safetensors.index.json", "consolidated.safetensors", "pytorch_model.bin"], "model*.safetensors"),
    ],
)
def test_one_format_of_weights_is_downloaded(files: list[str], pattern: str) -> None:
    assert _weights_pattern(files) == pattern


def test_a_gated_part_is_named_by_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    raw = {
        "name": "t",
        "model": {"backbone": "git_llm", "vision_tower": "openai/clip-vit-base-patch16", "language_model": "a/b"},
        "adapters": {"projector": "full"},
        "data": [{"path": "d"}],
    }
    with pytest.raises(AccessError, match=r"a/b: HF_HUB_OFFLINE is set .* model\.language_model=PATH"):
        planned_config(check(raw, "test"))


def test_pickled_weights_are_loaded_without_running_their_code(tmp_path: Path) -> None:
    """As OPT-350m comes: `pytorch_model.bin`; one that would run code when unpickled is refused."""
    import torch
    from transformers import AutoModelForCausalLM, OPTConfig

    config = OPTConfig(hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=40)
    model = AutoModelForCausalLM.from_config(config)
    config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    again = AutoModelForCausalLM.from_pretrained(locate(str(tmp_path)).path, local_files_only=True)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({"a": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"[Ww]eights.only|unpickl|Unable to load"):
        AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert not (tmp_path / "ran").exists()
