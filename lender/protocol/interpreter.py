"""Which python jobs may go on in one interpreter: those whose environment names the same.

A variable and no field of the specification, since who reads one refuses fields that it does not
know: a lender or broker of before takes such a job, and gives it an interpreter of its own.
"""

from typing import Final

INTERPRETER_VARIABLE: Final = "LENDER_INTERPRETER"
