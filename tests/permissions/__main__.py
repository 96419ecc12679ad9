"""Print the matrix as a real server has it: P publishes, S subscribes, . is refused."""

import asyncio
import tempfile
from pathlib import Path

from house_server import WITNESS, HouseServer

from permissions import house
from permissions.people import PEOPLE, lines
from permissions.trial import trial


async def measure() -> list[str]:
    """A line for each line of the table, with those who may and those who may not."""
    with tempfile.TemporaryDirectory(prefix="lender-permissions-") as folder:
        async with trial(Path(folder)) as one:
            rows = []
            refused = {
                (person, deed): await one.refused(
                    person, deed, [subject for verb, subject in lines() if verb == deed]
                )
                for person in PEOPLE
                for deed in ("publish", "subscribe")
            }
            for deed, subject in lines():
                marks = [
                    "." if subject.lower() in refused[person, deed] else deed[0].upper()
                    for person in PEOPLE
                ]
                rows.append("  ".join(f"{mark:^5}" for mark in marks) + f"  {_short(subject)}")
    columns = range(1, len(PEOPLE) + 1)
    return [
        *(f"{column} {one.name} ({one.role})" for column, one in zip(columns, PEOPLE, strict=True)),
        "",
        "  ".join(f"{column:^5}" for column in columns),
        *rows,
        "",
        "lenderd on a house's MQTT server:",
        *await _of_the_house(),
    ]


async def _of_the_house() -> list[str]:
    with tempfile.TemporaryDirectory(prefix="lender-permissions-") as folder:
        async with HouseServer(Path(folder), WITNESS) as one:
            published, subscribed = await house.taken(one)
    return [
        f"{'P' if topic in published else '.'} {'S' if topic in subscribed else '.'}  {topic}"
        for topic in house.tried("subscribe")
    ]


def _short(subject: str) -> str:
    """With names in place of keys."""
    for person in PEOPLE:
        subject = subject.replace(person.key.public, f"<{person.name}>")
    return subject


if __name__ == "__main__":
    print("\n".join(asyncio.run(measure())))  # noqa: T201 - asked for
