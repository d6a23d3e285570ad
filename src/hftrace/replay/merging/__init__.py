"""Finished traces of the ranks of one job become one: ids, clocks, the header, how each rank ended."""
