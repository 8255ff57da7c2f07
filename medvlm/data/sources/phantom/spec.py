"""What a phantom shows: its modality, its finding and where the finding lies. Text and picture are made from it."""

from __future__ import annotations

import dataclasses
import random

from medvlm.evaluate.findings import FINDINGS

MODALITIES = ("radiograph", "ct")
SIDES = ("left", "right")
SIZES = ("small", "large")
ZONES = {"radiograph": ("upper", "lower"), "ct": ("anterior", "posterior")}
# Heart size is judged on the radiograph only, so CT has no cardiomegaly. The shares keep any constant answer poor.
SHARES = {
    "radiograph": {"nodule": 0.26, "effusion": 0.20, "cardiomegaly": 0.18, "pneumothorax": 0.20, "none": 0.16},
    "ct": {"nodule": 0.30, "effusion": 0.26, "cardiomegaly": 0.0, "pneumothorax": 0.26, "none": 0.18},
}


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """One phantom's facts. `side` is the patient's; it, `size` and `zone` are None where the finding has none."""

    modality: str
    finding: str
    side: str | None = None
    size: str | None = None
    zone: str | None = None

    @property
    def other_side(self) -> str | None:
        """Return the side without the finding, or None where the finding has no side."""
        return None if self.side is None else SIDES[1 - SIDES.index(self.side)]


def random_spec(rng: random.Random) -> Spec:
    """Draw facts: 60 % radiographs, findings by `SHARES`, side, size and zone evenly."""
    modality = "radiograph" if rng.random() < 0.6 else "ct"
    shares = SHARES[modality]
    finding = rng.choices(FINDINGS, [shares[name] for name in FINDINGS])[0]
    side, size, zone = rng.choice(SIDES), rng.choice(SIZES), rng.choice(ZONES[modality])
    if finding in ("cardiomegaly", "none"):
        return Spec(modality, finding)
    return Spec(modality, finding, side, size, zone if finding == "nodule" else None)


def all_specs() -> list[Spec]:
    """Return every possible `Spec` once."""
    found = []
    for modality in MODALITIES:
        for finding in FINDINGS:
            if SHARES[modality][finding] == 0:
                continue
            if finding in ("cardiomegaly", "none"):
                found.append(Spec(modality, finding))
                continue
            zones = ZONES[modality] if finding == "nodule" else (None,)
            found += [Spec(modality, finding, side, size, zone) for side in SIDES for size in SIZES for zone in zones]
    return found
