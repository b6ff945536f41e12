import pytest

from melprint.models import Fingerprinter, build_fingerprinter

MODEL = {
    "segment": {},
    "mel": {"num_mels": 64, "unit_level": True},
    "encoder": {"_target_": "melprint.models.compact.CompactEncoder", "widths": [8, 16], "num_features": 64},
    "projection": {"_target_": "melprint.models.projection.DivideAndEncode", "dim": 16, "hidden": 4},
}


@pytest.fixture
def model() -> Fingerprinter:
    return build_fingerprinter(**MODEL).eval()
