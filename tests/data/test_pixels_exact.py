"""Pixel values in two steps are bit for bit those of transformers' processors; what is not is left to the processor."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import BitImageProcessorPil, CLIPImageProcessorPil, SiglipImageProcessorPil, ViTImageProcessorPil

from medvlm.data import pixels
from medvlm.data.images import decode
from medvlm.models.backbones.base import Example
from medvlm.models.backbones.rows import finished, looked_up, pixel_values

SQUARE = {"height": 28, "width": 28}


class Inverted(SiglipImageProcessorPil):
    """A processor of somebody else's: it turns the gray scale around after normalizing."""

    def normalize(self, image: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
        return -(super().normalize(image, *args, **kwargs) ** 3)


class Neighbors(SiglipImageProcessorPil):
    """A processor whose numbers depend on those beside them."""

    def normalize(self, image: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
        return image - image.mean()


PROCESSORS = {
    "SigLIP": lambda: SiglipImageProcessorPil(size=SQUARE),
    "SigLIP, odd, other constants": lambda: SiglipImageProcessorPil(
        size={"height": 27, "width": 31}, image_mean=[0.1, 0.5, 0.7], image_std=[0.2, 0.5, 0.3], resample=2
    ),
    "CLIP, square": lambda: CLIPImageProcessorPil(size=SQUARE, crop_size=SQUARE),
    "CLIP, cropped": lambda: CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=SQUARE),
    "ViT": lambda: ViTImageProcessorPil(size=SQUARE),
    "BiT": lambda: BitImageProcessorPil(size={"shortest_edge": 40}, crop_size=SQUARE),
    "of somebody else": lambda: Inverted(size=SQUARE),
}
RESIZED_HERE = ("SigLIP", "SigLIP, odd, other constants", "CLIP, square", "ViT")


def picture(seed: int, width: int, height: int, gray: bool) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 1 if gray else 3), dtype=np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(values, (height, width, 3))))


def shown(*images: Image.Image) -> list[Example]:
    return [Example(image, "") for image in images]


@pytest.mark.parametrize("name", PROCESSORS)
def test_batches_are_the_processors(name: str) -> None:
    processor = PROCESSORS[name]()
    known = pixels.of(processor)
    assert known is not None
    assert (known.plan is not None) == (name in RESIZED_HERE)
    images = [
        picture(n, *size, n % 2 == 0) for n, size in enumerate([(28, 28), (90, 40), (13, 77), (300, 200), (5, 5)])
    ]
    expected = processor(images, return_tensors="pt")["pixel_values"]
    assert torch.equal(pixel_values(processor, shown(*images)), expected)
    # Kept in 8 bits, beside pictures that are not.
    kept = [Example(None, "", pixels=torch.from_numpy(np.array(known.bytes_of(image)))) for image in images[:3]]
    assert torch.equal(pixel_values(processor, [*kept, *shown(*images[3:])]), expected)
    again = pickle.loads(pickle.dumps(known))
    assert torch.equal(again.values(again.bytes_of(images[1])), expected[1])


_SIGLIP, _CLIP = PROCESSORS["SigLIP, odd, other constants"](), PROCESSORS["CLIP, square"]()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 999), st.integers(1, 120), st.integers(1, 120), st.booleans(), st.booleans())
def test_any_size_in_gray_and_color(seed: int, width: int, height: int, gray: bool, clip: bool) -> None:
    processor = _CLIP if clip else _SIGLIP
    image = picture(seed, width, height, gray)
    if not gray and seed % 2:
        # Gray but for one pixel.
        image = image.convert("L").convert("RGB")
        image.putpixel((seed % width, seed % height), (9, 9, 10))
    expected = processor([image], return_tensors="pt")["pixel_values"]
    assert torch.equal(pixel_values(processor, shown(image)), expected)


def test_pictures_in_other_modes_are_the_processors_to_convert() -> None:
    processor = PROCESSORS["SigLIP"]()
    images = [picture(1, 40, 30, False).convert(mode) for mode in ("L", "RGBA", "P", "RGB")]
    expected = torch.cat([processor([image], return_tensors="pt")["pixel_values"] for image in images])
    assert torch.equal(pixel_values(processor, shown(*images)), expected)


def test_a_processor_that_does_more_is_left_to_itself() -> None:
    processor = Neighbors(size=SQUARE)
    assert pixels.of(processor) is None
    images = [picture(n, 40, 30, False) for n in range(3)]
    expected = processor(images, return_tensors="pt")["pixel_values"]
    assert torch.equal(pixel_values(processor, shown(*images)), expected)


def test_a_processor_that_stops_at_8_bits_is_left_to_itself() -> None:
    processor = SiglipImageProcessorPil(size=SQUARE, do_rescale=False, do_normalize=False)
    assert pixels.of(processor) is None
    images = [picture(n, 40, 30, False) for n in range(3)]
    expected = processor(images, return_tensors="pt")["pixel_values"]
    made = finished(processor, pixel_values(processor, shown(*images)))
    assert made.dtype == expected.dtype == torch.uint8
    assert torch.equal(made, expected)


@pytest.mark.parametrize("error", [NotImplementedError, ImportError])
def test_a_processor_that_refuses_its_steps_is_left_to_itself(error: type[Exception]) -> None:
    class Refusing(SiglipImageProcessorPil):
        def rescale(self, *args: Any, **kwargs: Any) -> np.ndarray:
            raise error("not this one")

    assert pixels.of(Refusing(size=SQUARE)) is None


def test_settings_that_change_are_seen() -> None:
    processor = PROCESSORS["SigLIP"]()
    image = picture(0, 60, 50, False)
    assert pixel_values(processor, shown(image)).shape == (1, 3, 28, 28)
    processor.size = {"height": 14, "width": 14}
    processor.image_mean = [0.2, 0.3, 0.4]
    expected = processor([image], return_tensors="pt")["pixel_values"]
    assert expected.shape == (1, 3, 14, 14)
    assert torch.equal(pixel_values(processor, shown(image)), expected)


class Listed(torch.utils.data.Dataset[Example]):
    def __init__(self, images: list[Image.Image]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return Example(self.images[index], "")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", PROCESSORS)
def test_workers_send_8_bits_that_are_finished_to_the_same_values(name: str) -> None:
    processor = PROCESSORS[name]()
    images = [picture(n, 50 + n, 40, n != 2) for n in range(6)]
    loader: Any = torch.utils.data.DataLoader(
        Listed(images), batch_size=2, num_workers=1, collate_fn=lambda examples: pixel_values(processor, examples)
    )
    sent = list(loader)
    # Only the second batch holds color.
    assert [values.shape[1] for values in sent] == [1, 3, 1]
    assert {values.dtype for values in sent} == {torch.uint8}
    expected = processor(images, return_tensors="pt")["pixel_values"]
    assert torch.equal(torch.cat([finished(processor, values) for values in sent]), expected)
    whole = pixel_values(processor, shown(*images))
    assert finished(processor, whole) is whole


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("gray", [False, True])
def test_a_device_finishes_to_the_same_values(gray: bool, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    processor = PROCESSORS["CLIP, square"]()
    known = pixels.of(processor)
    assert known is not None
    images = [picture(n, 50 + n, 40, gray) for n in range(3)]
    records = np.stack([known.bytes_of(image)[: 1 if gray else 3] for image in images])
    made = looked_up(torch.from_numpy(known.table).to(device), torch.from_numpy(records).to(device))
    assert torch.equal(made.cpu(), processor(images, return_tensors="pt")["pixel_values"])


@pytest.mark.realdata
def test_radiology_pictures_at_448_pixels(realdata: Path) -> None:
    """A twelfth of VQA-RAD's pictures; the benchmark of loading compares all."""
    processor = SiglipImageProcessorPil(size={"height": 448, "width": 448}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    files = sorted((realdata / "vqa_rad" / "images").iterdir())[::12]
    known = {entry["image_name"] for entry in json.loads((realdata / "vqa_rad" / "trainset.json").read_text("utf-8"))}
    assert len(files) > 25
    assert any(path.name in known for path in files)
    for path in files:
        with Image.open(path) as image:
            plain = processor([image], return_tensors="pt")["pixel_values"]
        assert torch.equal(pixel_values(processor, shown(decode(path.read_bytes()))), plain), path.name
