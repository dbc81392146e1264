"""This server beside others, measured: the floor is what is required, the ceiling is smtp-sink, which is C.

    pip install '.[bench]'
    pytest -p benchmark tests/benchmarks --benchmark-json=new.json

Each benchmark is a race: in each of its rounds every server has a turn, the first of one round being the last of the
next, so that whatever else the machine does disturbs all of them alike, and ratios are those of a round. `race` runs
them, `servers` and `processes` are who takes part, `clients` and `inside` what they are given to do, `suites` the tests
that plugins are measured with, and `report` makes tables of what has come of it.
"""
