"""What was kept, and what can be made of it, is taken or refused and does nothing else."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from fuzz.mutation import mutants
from fuzz.table import TARGETS
from fuzz.target import Target

_EXAMPLES = 30

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@targets
def test_what_is_kept_does_no_harm(target: Target) -> None:
    for name, data in target.corpus().items():
        try:
            target.attack(data)
        except Exception as fault:
            fault.add_note(f"{target.name}/{name}")
            raise


@targets
def test_what_comes_of_it_does_no_harm(target: Target) -> None:
    @settings(
        max_examples=_EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutants(target))
    def attack(data: bytes) -> None:
        target.attack(data)

    attack()
