"""Whatever an agent of somebody who does not sit here says, the machine never looks emptier."""

from hypothesis import given
from hypothesis import strategies as st

from lender.core.policy import PresenceRule
from lender.core.presence import PresenceWatch
from lender.core.signals import PresenceState, Signals
from lender.daemon.agent_reports import AgentReports
from lender.sensors.sighting import Sighting, merge

NOW = 100_000.0
OWNER, STRANGER = 1000, 4711
RANK: dict[PresenceState, int] = {"present": 0, "idle": 1, "away": 2}

uids = st.sampled_from([OWNER, 1001, 1002])
idle_s = st.one_of(st.none(), st.floats(0, 10_000))
flags = st.one_of(st.none(), st.booleans())
watched = st.builds(
    Sighting,
    source=st.just("source"),
    uid=st.one_of(st.none(), uids),
    last_input_at=idle_s.map(lambda s: None if s is None else NOW - s),
    locked=flags,
    desktop=flags,
    inhibited_by=st.sampled_from([None, "", "mpv"]),
)


@st.composite
def sessions(draw: st.DrawFn) -> Sighting:
    """Draw what logind tells: a session on a screen makes a desktop."""
    sitting = draw(st.frozensets(uids))
    remote = draw(st.frozensets(uids))
    greeter = draw(st.booleans())
    return Sighting(
        "logind",
        sitting=sitting,
        remote_desktops=remote,
        desktop=bool(sitting or remote or greeter),
        locked=draw(flags) if sitting or remote else (True if greeter else None),
        remote_sessions=draw(st.integers(0, 2)),
    )


reports = st.fixed_dictionaries(
    {},
    optional={
        "idle_s": idle_s,
        "locked": flags,
        "game": st.booleans(),
        "inhibited_by": st.sampled_from(["", "vlc"]),
        "source": st.just("mutter"),
    },
)


def state(sightings: list[Sighting], *, desktop: bool) -> PresenceState:
    found = merge(NOW, sightings, OWNER, desktop=desktop)
    signals = Signals(
        cpu_others=0.0,
        memory_available_bytes=0,
        presence=found.presence,
        inhibited_by=found.inhibited_by,
    )
    return PresenceWatch(PresenceRule()).read(NOW, signals)


@given(st.lists(watched, max_size=4), st.lists(sessions(), max_size=1), reports, st.booleans())
def test_a_stranger_never_makes_the_machine_look_emptier(
    seen: list[Sighting],
    logind: list[Sighting],
    report: dict[str, object],
    desktop: bool,  # noqa: FBT001 - drawn
) -> None:
    agents = AgentReports()
    agents.told(report, STRANGER, NOW)
    before = state([*seen, *logind], desktop=desktop)
    after = state([*seen, *logind, *agents.sightings(NOW)], desktop=desktop)
    assert RANK[after] <= RANK[before]
