"""What clients make of each action is what the README's table says."""

from __future__ import annotations

import inspect

import pytest
from outcomes import CASES, CLIENTS, SENT, TWO_MINUTES, Case, measure

from pytest_smtpd import RecordingServer
from pytest_smtpd.testing.faults import Rule

RUNS = [
    pytest.param(case, client, id=f"{case.stage}{case.code}-{client}")
    for case in CASES
    for client in CLIENTS
    if TWO_MINUTES not in getattr(case, client)
]


@pytest.mark.parametrize(("case", "client"), RUNS)
def test_what_a_client_makes_of_an_action(case: Case, client: str) -> None:
    """A client comes to the stage, and ends as the table says; a message is there if it says "sent", as a rule."""
    with RecordingServer(**case.options) as server:
        rule, outcome = measure(client, server, case)
        assert rule.hits == 1
        assert outcome in getattr(case, client).split(" / ")
        stored = ("store",) in case.actions or case.stage == "QUIT"
        lost = ("discard",) in case.actions
        assert len(server.messages) == ((outcome == SENT or stored) and not lost)


def test_the_table_has_all_actions() -> None:
    """Each method of a rule that says what happens is in the table."""
    actions = {
        name
        for name, method in inspect.getmembers(Rule, inspect.isfunction)
        if inspect.signature(method).return_annotation == "Self" and not name.startswith("_")
    }
    assert {name for case in CASES for name, *_ in case.actions} == actions
