"""Builds what the sandboxes' walls have in C into a wheel, which makes it one for this platform."""

import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py


class BuildWithWalls(build_py):
    """Without a C compiler there is a wall less, which lender says of itself."""

    def run(self) -> None:
        """Build in place, then collect."""
        subprocess.run([Path(__file__).parent / ".ci" / "walls"], check=True)
        super().run()


class PlatformWheel(bdist_wheel):
    """For any Python, and for this system and processor where there is something in C."""

    def finalize_options(self) -> None:
        """Not pure on Linux."""
        super().finalize_options()
        self.root_is_pure = sys.platform != "linux"

    def get_tag(self) -> tuple[str, str, str]:
        """The platform alone."""
        return "py3", "none", super().get_tag()[2]


setup(cmdclass={"build_py": BuildWithWalls, "bdist_wheel": PlatformWheel})
