"""Whatever a job asks for and is given, it gets to nothing that its grant does not allow."""

from hypothesis import given
from hypothesis import strategies as st

from lender.protocol.reach import allows, check_place, covers, parse_reach

labels = st.sampled_from(["a", "b", "c-1"])
names = st.lists(labels, min_size=1, max_size=3).map(lambda parts: ".".join([*parts, "org"]))
ports = st.sampled_from(["", ":80", ":443", ":22"])
places = st.one_of(
    st.just("internet"),
    st.builds(
        lambda wild, name, port: wild + name + port, st.sampled_from(["", "*."]), names, ports
    ),
)
reaches = st.lists(places, max_size=4).map(tuple)
targets = st.tuples(names | st.just("93.184.216.34"), st.sampled_from([22, 80, 443, 8443]))


@given(reaches, reaches, targets)
def test_what_is_covered_reaches_no_further(
    grant: tuple[str, ...], job: tuple[str, ...], target: tuple[str, int]
) -> None:
    if covers(grant, job) and allows(job, *target):
        assert allows(grant, *target)


@given(reaches)
def test_a_reach_covers_itself_and_reads_back(reach: tuple[str, ...]) -> None:
    assert covers(reach, reach)
    assert parse_reach(",".join(reach) or "none") == tuple(dict.fromkeys(reach))


@given(st.text(max_size=40))
def test_no_text_is_taken_that_is_no_place(text: str) -> None:
    try:
        place = check_place(text)
    except ValueError:
        return
    assert place == "internet" or (place.isascii() and "." in place and place.lower() == place)
