"""The working folder that a hostile program writes into: place, measure, take out, wipe."""
