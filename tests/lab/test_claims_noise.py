"""A claim beside noise: the verdict is the one of a quiet machine, or there is none.

This claim holds wherever Linux runs (a process that multiplexes is blocked in the call that asks), so no
quiet run is needed to know its verdict, and it takes seconds. `make claims-noise` compares all claims with
quiet runs, and makes noise of more kinds.
"""

from __future__ import annotations

import pytest
from support.claims_noise import disagree
from support.noise import verdicts

CLAIM = "blocked-in-select"


@pytest.mark.parametrize("kind", ["two busy loops", "one core"])
def test_no_noise_turns_a_verdict_round(kind: str) -> None:
    verdict, because = verdicts(CLAIM, kind)[CLAIM]
    assert verdict in ("supported", "not measured"), because
    if kind == "two busy loops":  # they leave no core free, so nothing is undisturbed
        assert verdict == "not measured"
    if verdict == "not measured":
        assert "busy" in because


def test_a_claim_that_is_stopped_has_no_verdict() -> None:
    assert verdicts(CLAIM, None, limit=0.05) == {}


def test_only_verdicts_can_disagree() -> None:
    assert not disagree({"quiet": ("supported", ""), "nice": ("not measured", ""), "one": ("supported", "")})
    assert not disagree({"quiet": ("not measured", ""), "nice": ("supported", "")})
    assert disagree({"quiet": ("not measured", ""), "nice": ("supported", ""), "one": ("contradicted", "")})
    assert disagree({"quiet": ("depends", ""), "nice": ("supported", "")})
