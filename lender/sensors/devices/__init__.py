"""What hangs on this machine that work can be asked to run on: an adapter per kind.

`adapter.py` says what an adapter is. Each looks at the kernel's files, or asks one program that it
bounds in time and length; what a program prints is outside text. None raises for a broken
device: it is told as a fault, with what to do about it, and not offered.
"""
