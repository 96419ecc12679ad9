"""A phone farm for tests, as an orchestrator's own program would tell of one.

`python phone_farm.py FILE` prints the phones that the file holds: a name, a battery, a temperature
and whether it is charged in each line. What the real one asks of adb is here a file.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    """Print a line of JSON for each phone."""
    for line in Path(sys.argv[1]).read_text().splitlines():
        phone, battery, temperature_c, charging = line.split()
        fields = {
            "phone": phone,
            "battery": float(battery),
            "temperature_c": float(temperature_c),
            "charging": charging == "yes",
        }
        sys.stdout.write(f"{json.dumps(fields)}\n")


if __name__ == "__main__":
    main()
