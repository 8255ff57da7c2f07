"""The caches: exactly what is computed without them, resumed after a kill, never stale, never half-written."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from prepared import write_folder

from medvlm.data import cache
from medvlm.data import store as stores
from medvlm.data.mixture import Mixture
from medvlm.data.sources.phantom.base_grammar import base_samples
from medvlm.data.store import Store
from medvlm.errors import InputError, RecipeError, ResourceError
from medvlm.models.features import look, skip_tower, tower_of
from medvlm.models.load import Loaded, load_base
from medvlm.recipe.load import check
from medvlm.train.collate import Collator, Examples
from medvlm.train.loss import forward_loss


class Told:
    """Keeps what progress was told."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, int | None, str]] = []

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        self.lines.append((done, total, note))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MEDVLM_CACHE", raising=False)
    listed = [next(iter(base_samples(5, i))) for i in range(20)]
    # Two questions about one picture.
    listed[7].image = listed[3].image
    return write_folder(tmp_path / "set", {"train": listed[:16], "validation": listed[16:]})


def recipe(tiny: Path, data: Path, **more: Any) -> Any:
    model = {"id": str(tiny), "dtype": more.pop("dtype", "float32"), "image_size": more.pop("image_size", None)}
    return check(
        {"name": "t", "model": model, "data": [{"path": str(data), **more}], "train": {"learning_rate": 1e-3}}, "t"
    )


def fill(asked: Any, loaded: Loaded | None = None, split: str = "train") -> tuple[Any, Mixture, Told]:
    told = Told()
    mixture = Mixture(asked.data, split, 0)
    return cache.prepare(asked, [mixture], loaded or load_base(asked), told), mixture, told


@pytest.fixture(scope="module")
def processors() -> dict[str, Any]:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    side = {"height": 56, "width": 56}
    return {
        "siglip": SiglipImageProcessorPil(size=side),
        "clip": CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=side),
        "imagenet": SiglipImageProcessorPil(size=side, image_mean=[0.4, 0.3, 0.5], image_std=[0.2, 0.21, 0.3]),
    }


@pytest.mark.parametrize("name", ["siglip", "clip", "imagenet"])
@pytest.mark.parametrize("shape", [(90, 70), (31, 400), (56, 56), (20, 21)])
def test_cached_pixels_are_bit_for_bit_those_of_the_processor(
    name: str, shape: tuple[int, int], processors: dict[str, Any]
) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8))
    plain = processors[name](picture, return_tensors="pt")["pixel_values"][0]
    kept = cache.Pixels(processors[name])
    record = kept.bytes_of(picture)
    assert record.dtype == np.uint8
    assert torch.equal(kept.values(record), plain)
    assert torch.equal(kept.afresh(picture), plain)


@pytest.mark.parametrize("what", ["cache_pixels", "cache_features"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_losses_over_several_steps_are_those_without_a_cache(
    what: str, dtype: str, tiny_folder: Path, data: Path
) -> None:
    from medvlm.models import adapters
    from medvlm.models.backbones import BACKBONES

    kind = BACKBONES.get("paligemma")

    def losses(cached: bool) -> list[float]:
        asked = recipe(tiny_folder, data, dtype=dtype, **{what: cached})
        loaded = load_base(asked)
        caches, mixture, _ = fill(asked, loaded)
        assert (caches is not None) == cached
        torch.manual_seed(0)
        model = adapters.apply(loaded.model, asked.adapters, kind).train()
        adapters.trainable_in_float32(model)
        if what == "cache_features":
            skip_tower(model, kind)
        examples, collate = Examples(mixture, asked.prompts, cache=caches), Collator(loaded.backbone)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
        found = []
        for start in range(0, 16, 4):
            inputs = collate([examples[i] for i in range(start, start + 4)])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = forward_loss(model, inputs)[0]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    plain = losses(False)
    assert plain[0] != plain[-1]
    assert losses(True) == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("what", ["cache_pixels", "cache_features"])
def test_pictures_are_kept_once_and_neither_decoded_nor_computed_again(
    what: str, tiny_folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(tiny_folder, data, **{what: True})
    caches, mixture, told = fill(asked)
    assert told.lines[0][:2] == (0, 15)
    assert "GB to " in told.lines[0][2]
    assert told.lines[-1][:2] == (15, 15)
    first = [caches.values(mixture, place) for place in range(len(mixture))]
    assert torch.equal(first[3], first[7])
    assert len({value.numpy().tobytes() for value in first}) == 15
    monkeypatch.setattr("medvlm.data.images.decode", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr("medvlm.models.features.look", lambda *_: torch.zeros(1, *first[0].shape))
    again, mixture, told = fill(asked)
    assert told.lines == []
    # As a worker process gets it.
    again = pickle.loads(pickle.dumps(again))
    for place, value in enumerate(first):
        assert torch.equal(again.values(mixture, place), value)
    assert len(pickle.dumps(again)) < 1e5


@pytest.mark.parametrize("what", ["cache_pixels", "cache_features"])
def test_filling_a_cache_draws_no_random_numbers(what: str, tiny_folder: Path, data: Path) -> None:
    """A run that fills it and one that finds it filled begin with the same weights."""
    asked = recipe(tiny_folder, data, **{what: True})
    loaded = load_base(asked)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    fill(asked, loaded)
    assert torch.equal(torch.get_rng_state(), before)


def test_only_what_is_used_is_computed_and_the_rest_when_it_is(tiny_folder: Path, data: Path) -> None:
    asked, told = recipe(tiny_folder, data, cache_pixels=True), Told()
    loaded, mixture = load_base(asked), Mixture(asked.data, "train", 0)
    caches = cache.prepare(asked, [mixture], loaded, told, [[0, 5, 9]])
    assert told.lines[-1][:2] == (3, 3)
    assert caches is not None
    # A picture without a record is computed.
    plain = loaded.backbone.image_processor(mixture.image(1), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(caches.values(mixture, 1), plain)
    _, _, told = fill(asked, loaded)
    assert told.lines[-1][:2] == (12, 12)


def test_each_split_finds_its_own(tiny_folder: Path, data: Path) -> None:
    asked = recipe(tiny_folder, data, cache_pixels=True)
    loaded = load_base(asked)
    mixtures = [Mixture(asked.data, split, 0) for split in ("train", "validation")]
    caches = cache.prepare(asked, mixtures, loaded, Told())
    assert caches is not None
    for mixture in mixtures:
        for place in range(len(mixture)):
            plain = loaded.backbone.image_processor(mixture.image(place), return_tensors="pt")["pixel_values"][0]
            assert torch.equal(caches.values(mixture, place), plain)


@pytest.mark.parametrize("changed", ["tower", "image_size", "processor", "dtype", "pictures"])
def test_a_stale_cache_is_never_used(changed: str, tiny_folder: Path, data: Path) -> None:
    asked = recipe(tiny_folder, data, cache_features=True)
    fill(asked)
    if changed == "image_size":
        asked = recipe(tiny_folder, data, cache_features=True, image_size=224)
    if changed == "dtype":
        asked = recipe(tiny_folder, data, cache_features=True, dtype="bfloat16")
    loaded = load_base(asked)
    kind = type(loaded.backbone)
    if changed == "tower":
        tower_of(loaded.model, kind).get_parameter("encoder.layers.3.mlp.fc2.bias").data[5] += 0.5
    if changed == "processor":
        loaded.processor.image_processor.image_mean = [0.4, 0.5, 0.5]
    if changed == "pictures":
        # The same folder, manifest and ids with other pictures.
        listed = [next(iter(base_samples(5, i))) for i in range(16)]
        for sample, other in zip(listed, [*listed[1:], listed[0]], strict=True):
            sample.image = next(iter(base_samples(9, int(other.id[-1], 36)))).image
        write_folder(data, {"train": listed})
    caches, mixture, told = fill(asked, loaded)
    assert told.lines, "nothing was computed afresh"
    pixels = loaded.backbone.image_processor([mixture.image(2)], return_tensors="pt")["pixel_values"]
    expected = look(tower_of(loaded.model, kind), pixels, getattr(torch, asked.model.dtype))[0]
    assert torch.allclose(
        caches.values(mixture, 2).float(), expected.float(), atol=2e-2 if changed == "dtype" else 1e-5
    )


def test_another_folder_for_caches(
    tiny_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDVLM_CACHE", str(tmp_path / "fast"))
    fill(recipe(tiny_folder, data, cache_pixels=True))
    assert list((tmp_path / "fast").glob("pixels-*/values"))
    assert not (data / ".cache").exists()


def test_all_data_sets_of_a_mixture_cache_features_or_none(tiny_folder: Path, data: Path) -> None:
    asked = recipe(tiny_folder, data, cache_features=True)
    parts = [asked.data[0], asked.data[0].model_copy(update={"cache_features": False})]
    asked = asked.model_copy(update={"data": parts})
    with pytest.raises(RecipeError, match=r"data\.1\.cache_features"):
        fill(asked)


def test_a_data_set_without_a_cache_beside_one_with_cached_pixels(tiny_folder: Path, data: Path) -> None:
    asked = recipe(tiny_folder, data, cache_pixels=True)
    asked = asked.model_copy(update={"data": [asked.data[0], asked.data[0].model_copy(update={"cache_pixels": False})]})
    caches, mixture, told = fill(asked)
    assert told.lines[-1][:2] == (15, 15)
    assert torch.equal(caches.values(mixture, 2), caches.values(mixture, 16 + 2))


def test_a_full_disk_is_told_beforehand(tiny_folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(data)._replace(free=1 << 20)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: free)
    with pytest.raises(ResourceError, match=r"caching 15 pictures takes .* GB are free; .*MEDVLM_CACHE"):
        fill(recipe(tiny_folder, data, cache_pixels=True))


def test_a_folder_that_cannot_be_written(tiny_folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "plain").write_text("a file")
    monkeypatch.setenv("MEDVLM_CACHE", str(data / "plain"))
    with pytest.raises(InputError, match=r"no cache can be written .*; set MEDVLM_CACHE"):
        fill(recipe(tiny_folder, data, cache_pixels=True))


def test_a_disk_that_fills_up_leaves_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Store(tmp_path / "s", (4,), "uint8")
    with made.writer():
        made.append([b"a" * 32], np.arange(4).reshape(1, 4))
    real = stores._append

    def full(path: Path, data: bytes) -> None:
        real(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stores, "_append", full)
    with pytest.raises(ResourceError, match="no space left"), made.writer():
        made.append([b"b" * 32, b"c" * 32], np.ones((2, 4)))
    assert list(made.numbers()) == [b"a" * 32]
    monkeypatch.setattr(stores, "_append", real)
    with made.writer():
        made.append([b"d" * 32], np.full((1, 4), 9))
    assert made.numbers() == {b"a" * 32: 0, b"d" * 32: 1}
    assert made.read(1).tolist() == [9] * 4
    assert made.read(0).tolist() == [0, 1, 2, 3]
    made.read(0)[:] = 7
    assert made.read(0).tolist() == [0, 1, 2, 3]


_SLOW = """
import os, sys, time
import numpy as np
from pathlib import Path
from medvlm.data import store
made = store.Store(Path(sys.argv[1]), (1000,), "float32")
real = store._append
def slow(path, data):
    # In pieces, so that a kill falls into one.
    for at in range(0, len(data), 700):
        with open(path, "ab") as file:
            file.write(data[at : at + 700])
        time.sleep(0.0005)
store._append = slow
with made.writer():
    for number in range(len(made), 10**6):
        made.append([number.to_bytes(32, "big")], np.full((1, 1000), number))
        print(number, flush=True)
"""


def test_killed_anywhere_what_was_finished_is_whole_and_goes_on(tmp_path: Path) -> None:
    made = Store(tmp_path / "s", (1000,), "float32")
    for _ in range(3):
        before = len(made)
        process = subprocess.Popen([sys.executable, "-c", _SLOW, str(made.folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(5)]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.communicate()[0].split()]
        assert said[0] == before
        assert len(made) in (said[-1] + 1, said[-1] + 2)
        for key, number in made.numbers().items():
            assert int.from_bytes(key, "big") == number
            assert (made.read(number) == number).all()


def test_workers_decode_and_give_the_same(tiny_folder: Path, data: Path) -> None:
    asked = recipe(tiny_folder, data, cache_features=True)
    one, mixture, _ = fill(asked)
    shutil.rmtree(data / ".cache")
    two, _, told = fill(asked.model_copy(update={"train": asked.train.model_copy(update={"workers": 2})}))
    assert told.lines[-1][:2] == (15, 15)
    for place in range(len(mixture)):
        assert torch.allclose(one.values(mixture, place), two.values(mixture, place), atol=1e-6)


def test_a_picture_that_cannot_be_read_is_one_line_and_the_rest_is_kept(tiny_folder: Path, tmp_path: Path) -> None:
    listed = [next(iter(base_samples(5, i))) for i in range(40)]
    listed[20].image.data = listed[20].image.data[:300]
    folder = write_folder(tmp_path / "broken", {"train": listed})
    with pytest.raises(InputError, match=f"{listed[20].id}: the image cannot be read") as caught:
        fill(recipe(tiny_folder, folder, cache_pixels=True))
    assert len(str(caught.value).splitlines()) == 1
    (values,) = (folder / ".cache").glob("pixels-*/keys")
    assert os.path.getsize(values) == 16 * 32
