"""The processes of a sandbox, from outside: find them, freeze, thaw and kill them, verified."""
