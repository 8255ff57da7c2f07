"""The phantoms: deterministic, posed within the frame, and with a finding that can be seen where its box says."""

from __future__ import annotations

import io
import random
import statistics

import numpy as np
import pytest
from PIL import Image

from medvlm.data.sources.phantom.canvas import Pose, smooth
from medvlm.data.sources.phantom.draw import SIZE, draw, encode
from medvlm.data.sources.phantom.spec import SIDES, Spec, all_specs, random_spec
from medvlm.evaluate.findings import FINDINGS

PLACED = [spec for spec in all_specs() if spec.finding != "none"]


def name_of(spec: Spec) -> str:
    return "-".join(value for value in (spec.modality, spec.finding, spec.side, spec.size, spec.zone) if value)


def level_inside(pixels: np.ndarray, box: tuple[float, float, float, float], percent: float) -> float:
    """Return a percentile of the values in a box."""
    height, width = pixels.shape
    x0, y0, x1, y1 = box
    inside = pixels[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)]
    return float(np.percentile(inside, percent))


@pytest.mark.parametrize("spec", all_specs(), ids=name_of)
def test_same_seed_same_bytes_other_seed_other_bytes(spec: Spec) -> None:
    first, again, other = (encode(draw(spec, np.random.default_rng(seed)).pixels) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    with Image.open(io.BytesIO(first)) as picture:
        assert (picture.mode, picture.size) == ("L", (SIZE, SIZE))


@pytest.mark.parametrize("spec", PLACED, ids=name_of)
def test_finding_lies_on_its_side_and_in_its_zone(spec: Spec) -> None:
    centers = []
    for seed in range(12):
        box = draw(spec, np.random.default_rng(seed), size=112).finding_box
        assert box is not None
        x0, y0, x1, y1 = box
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1
        centers.append(((x0 + x1) / 2, (y0 + y1) / 2))
        # The patient's left is on the image's right.
        if spec.side:
            assert ((x0 + x1) / 2 > 0.5) == (spec.side == "left")
    height = statistics.mean(y for _, y in centers)
    if spec.zone:
        assert (height < 0.5) == (spec.zone in ("upper", "anterior"))


def test_no_finding_has_no_box() -> None:
    assert draw(Spec("ct", "none"), np.random.default_rng(0)).finding_box is None


@pytest.mark.parametrize(
    ("modality", "finding", "brighter"),
    [
        ("radiograph", "nodule", True),
        ("radiograph", "effusion", True),
        ("radiograph", "pneumothorax", False),
        ("ct", "nodule", True),
        ("ct", "effusion", True),
        ("ct", "pneumothorax", False),
    ],
)
def test_finding_stands_out_against_the_same_place_of_the_other_side(
    modality: str, finding: str, brighter: bool
) -> None:
    zone = None if finding != "nodule" else "upper" if modality == "radiograph" else "posterior"
    gaps = []
    for seed in range(10):
        for side in SIDES:
            drawing = draw(Spec(modality, finding, side, "small", zone), np.random.default_rng(seed))
            x0, y0, x1, y1 = drawing.finding_box or (0, 0, 1, 1)
            # The box of a pneumothorax holds the shrunken lung too: its dark part tells.
            percent = 60 if brighter else 15
            there = level_inside(drawing.pixels, (x0, y0, x1, y1), percent)
            gaps.append(there - level_inside(drawing.pixels, (1 - x1, y0, 1 - x0, y1), percent))
    assert (statistics.mean(gaps) > 12) == brighter
    assert (statistics.mean(gaps) < -12) == (not brighter)


def test_nodules_measure_ten_to_eighteen_pixels_at_112_and_sizes_do_not_overlap() -> None:
    widths: dict[str, list[float]] = {"small": [], "large": []}
    for spec in all_specs():
        if spec.finding == "nodule" and spec.size:
            for seed in range(8):
                x0, _, x1, _ = draw(spec, np.random.default_rng(seed)).finding_box or (0, 0, 0, 0)
                widths[spec.size].append(112 * (x1 - x0))
    assert min(widths["small"]) >= 8
    assert max(widths["large"]) <= 21
    assert max(widths["small"]) < min(widths["large"])


def test_an_enlarged_heart_is_wider_than_half_of_the_thorax() -> None:
    for seed in range(20):
        x0, _, x1, _ = draw(Spec("radiograph", "cardiomegaly"), np.random.default_rng(seed)).finding_box or (0, 0, 0, 0)
        # The thorax spans 2 * 0.79 body units of at most 0.46 * 1.06 * 1.04 of the image each.
        assert (x1 - x0) / (2 * 0.79 * 0.46 * 1.06 * 1.04) > 0.5


def test_a_pose_turns_clockwise_about_the_middle_and_moves() -> None:
    pose = Pose(rotation=np.pi / 2, scale_x=0.5, scale_y=0.5, shift_x=0.1, shift_y=0.0)
    placed = pose.place(np.array([(0.0, 0.0), (1.0, 0.0)]))
    np.testing.assert_allclose(placed, [(0.6, 0.5), (0.6, 1.0)], atol=1e-12)


def test_smoothing_stays_within_the_polygon_and_keeps_tripled_corners() -> None:
    square = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (0.0, 1.0)]
    points = smooth(square)
    assert points.min() >= 0
    assert points.max() <= 1
    assert np.abs(points - (1.0, 1.0)).sum(axis=1).min() == 0
    assert np.abs(points - (0.0, 0.0)).sum(axis=1).min() > 0.05


def test_shares_keep_every_constant_answer_poor() -> None:
    rng = random.Random(0)
    drawn = [random_spec(rng) for _ in range(4000)]
    shares = {finding: sum(spec.finding == finding for spec in drawn) / len(drawn) for finding in FINDINGS}
    assert max(shares.values()) < 0.32
    assert min(shares.values()) > 0.08
    assert set(drawn) == set(all_specs())


@pytest.mark.slow
def test_a_tiny_network_learns_findings_and_sides_of_phantoms_it_has_not_seen() -> None:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        images, labels = phantoms(1500, seed=1)
        unseen, truth = phantoms(400, seed=2)
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            *(torch.nn.Conv2d(1, 16, 5, 4, 2), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, 2, 1), torch.nn.ReLU()),
            *(torch.nn.Conv2d(32, 32, 3, 2, 1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32 * 49, 64)),
            *(torch.nn.ReLU(), torch.nn.Linear(64, 8)),
        )
        optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
        for _ in range(16):
            for batch in torch.randperm(len(images)).split(32):
                finding, side = network(images[batch]).split([5, 3], 1)
                loss = torch.nn.functional.cross_entropy(finding, labels[batch, 0])
                loss = loss + torch.nn.functional.cross_entropy(side, labels[batch, 1])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            finding, side = network(unseen).split([5, 3], 1)
        assert float((finding.argmax(1) == truth[:, 0]).float().mean()) > 0.9
        assert float((side.argmax(1) == truth[:, 1]).float().mean()) > 0.9
    finally:
        torch.set_num_threads(threads)


def phantoms(count: int, seed: int) -> tuple[object, object]:
    """Return images [N, 1, 112, 112] in -1 to 1 and labels [N, 2] (finding, side)."""
    import torch

    images, labels = [], []
    for index in range(count):
        spec = random_spec(random.Random(f"{seed}:{index}"))
        drawing = draw(spec, np.random.default_rng([seed, index]))
        small = Image.fromarray(drawing.pixels).resize((112, 112), Image.Resampling.BICUBIC)
        images.append(np.asarray(small, dtype=np.float32) / 127.5 - 1)
        labels.append((FINDINGS.index(spec.finding), SIDES.index(spec.side) if spec.side else 2))
    return torch.tensor(np.array(images))[:, None], torch.tensor(labels)
