"""The wire: ids, types, subjects, codec, signatures, errors. Pure: no I/O, no clock."""
