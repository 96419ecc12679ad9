"""No path, no argument and no variable can say anything in a macOS sandbox's profile."""

from hypothesis import given, settings
from hypothesis import strategies as st
from seatbelt_reader import read_line

from lender.sandbox.walls import seatbelt

NASTY = st.text(
    st.sampled_from("\"\\()\n\r\t;#|= -pD$`'*?{}[]ab\u00e9\U0001f600\udc80\x7f"), min_size=1
)
ANY = st.text(st.characters(blacklist_characters="\0/", blacklist_categories=()), min_size=1)
PARTS = st.one_of(NASTY, ANY, st.just('x") (allow default) (literal "')).filter(
    lambda part: part not in {".", ".."}
)
PATHS = st.lists(PARTS, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
WORDS = st.one_of(NASTY, ANY)


@settings(max_examples=60)
@given(
    scratch=PATHS,
    inputs=st.lists(PATHS, max_size=4),
    env=st.dictionaries(WORDS, WORDS, max_size=3),
    argv=st.lists(WORDS, min_size=1, max_size=4),
)
def test_hostile_words_leave_the_rules_as_they_are(
    scratch: str, inputs: list[str], env: dict[str, str], argv: list[str]
) -> None:
    plain = read_line(seatbelt.command("/s", [f"/s/{n}" for n in range(len(inputs))], {}, ["x"]))
    found = read_line(seatbelt.command(scratch, inputs, env, argv))
    assert found.forms == plain.forms
    named = {f"INPUT_{n}": path for n, path in enumerate(inputs)}
    assert found.parameters == {"SCRATCH": scratch, **named}
    assert found.rest[-len(argv) :] == argv


@settings(max_examples=60)
@given(scratch=PATHS, other=PATHS)
def test_only_the_scratch_folder_can_be_written(scratch: str, other: str) -> None:
    found = read_line(seatbelt.command(scratch, [f"{scratch}/input"], {}, ["x"]))
    assert found.allows("file-write-create", f"{scratch}/out")
    assert not found.allows("file-write-data", f"{scratch}/input")
    inside = other == scratch or other.startswith(f"{scratch}/")
    assert found.allows("file-write-create", other) == (inside and other != f"{scratch}/input")
