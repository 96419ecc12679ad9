"""Over any hours, usage and weeks: times read as they are told, sums add, no bound is passed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from lender.core.budget import Bound, Usage, parse_budget
from lender.core.schedule import DAY_S, WEEK_S, Hours, When, parse_when, week_s
from lender.core.spending import Spending

# How long an example takes says nothing here.
few_examples = settings(max_examples=60)

NOW = 1_763_942_400.0

day = st.integers(0, 6)
minute_s = st.integers(0, 1439).map(lambda minute: minute * 60)
offsets = st.integers(-12, 14).map(lambda hours: hours * 3600)
hours = st.builds(
    lambda first, last, start, length: Hours(
        first, last, start, (start + length) % DAY_S or DAY_S
    ),
    day, day, minute_s, st.integers(1, 1440).map(lambda minutes: minutes * 60),
).filter(lambda one: one.start_s != one.end_s)  # fmt: skip
whens = st.one_of(
    st.sampled_from([When("always"), When("idle"), When("away")]),
    st.lists(hours, min_size=1, max_size=5).map(lambda some: When("hours", tuple(some))),
)
usages = st.builds(Usage, st.floats(0, 1e6), st.integers(0, 10**12), st.floats(0, 1e4))
entries = st.lists(
    st.tuples(st.sampled_from(["G-1", "G-2"]), st.floats(0, 3 * WEEK_S), usages), max_size=30
)


@few_examples
@given(whens)
def test_what_is_kept_is_what_was_meant(when: When) -> None:
    assert parse_when(str(when)) == when


@few_examples
@given(st.text(alphabet="MonTueSat -:,0123456789away", max_size=30))
def test_any_text_is_a_time_or_named(text: str) -> None:
    try:
        when = parse_when(text)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either way is right
    else:
        assert parse_when(str(when)) == when


@few_examples
@given(hours, st.floats(0, WEEK_S, exclude_max=True))
def test_hours_hold_on_their_days_and_the_night_after(one: Hours, second: float) -> None:
    today, into_s = int(second // DAY_S), second % DAY_S
    days = {(one.first_day + n) % 7 for n in range((one.last_day - one.first_day) % 7 + 1)}
    if one.end_s > one.start_s:
        expected = today in days and one.start_s <= into_s < one.end_s
    else:
        evening = today in days and into_s >= one.start_s
        expected = evening or ((today - 1) % 7 in days and into_s < one.end_s)
    assert one.holds(second) == expected


@few_examples
@given(entries, offsets)
def test_sums_add_and_are_never_below_zero(
    used: list[tuple[str, float, Usage]], offset_s: int
) -> None:
    spending = Spending()
    for grant, at, usage in sorted(used, key=lambda one: one[1]):
        spending.count(grant, NOW + at, usage, offset_s)
        now = NOW + at
        for per in ("day", "week"):
            both = spending.used(now, offset_s, per)
            parts = [spending.used(now, offset_s, per, one) for one in ("G-1", "G-2")]
            assert both.moved_bytes == sum(part.moved_bytes for part in parts)
            assert all(part.cpu_s >= 0 and part.energy_wh >= 0 for part in parts)
            assert both.cpu_s >= max(part.cpu_s for part in parts)
        assert (
            spending.used(now, offset_s, "day").moved_bytes
            <= spending.used(now, offset_s, "week").moved_bytes
        )
    assert len(spending._days) <= 7 * 2


@few_examples
@given(entries, offsets, st.integers(1, 10**13), st.sampled_from(["day", "week"]))
def test_no_bound_is_reached_unnoticed(
    used: list[tuple[str, float, Usage]], offset_s: int, most: int, per: str
) -> None:
    spending = Spending()
    bound = Bound("moved_bytes", most, "day" if per == "day" else "week")
    seen: list[tuple[str, float, Usage]] = []
    for grant, at, usage in sorted(used, key=lambda one: one[1]):
        now = NOW + at
        spending.count(grant, now, usage, offset_s)
        seen.append((grant, now, usage))
        length_s = DAY_S if per == "day" else WEEK_S
        begun = now - (week_s(now, offset_s) % length_s)
        of_grant = sum(u.moved_bytes for g, t, u in seen if g == grant and t >= begun)
        of_all = sum(u.moved_bytes for _, t, u in seen if t >= begun)
        assert (spending.exhausted(now, offset_s, grant, (bound,)) is None) == (of_grant < most)
        assert (spending.exhausted_in_all(now, offset_s, (bound,)) is None) == (of_all < most)


@few_examples
@given(usages, offsets, st.floats(0, WEEK_S - 1))
def test_a_turn_of_the_week_frees_every_bound(usage: Usage, offset_s: int, at: float) -> None:
    budget = parse_budget(["1cpumin/day,1cpumin/week,1MB/day,1MB/week,1wh/day,1wh/week"])
    spending = Spending()
    now = NOW + at
    spending.count("G-1", now, usage, offset_s)
    monday = now - week_s(now, offset_s) + WEEK_S
    assert spending.exhausted(monday + 1, offset_s, "G-1", budget) is None
