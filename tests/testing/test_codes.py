"""One-time codes: found by a rule, or by a pattern."""

from __future__ import annotations

import re

import pytest

from pytest_smtpd.testing.codes import find_codes


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        pytest.param("Your verification code is 482913.", ["482913"], id="sentence"),
        pytest.param("482913 is your Google verification code", ["482913"], id="code first"),
        pytest.param("Use what is below:\n\n   482913   \n\nThank you", ["482913"], id="alone on its line"),
        pytest.param("Hi\n** 482913 **", ["482913"], id="alone but for signs"),
        pytest.param("Enter your one-time\npassword 4829 now", ["4829"], id="sentence of two lines"),
        pytest.param("Your code is:\n\n482913 (for 10 minutes)", ["482913"], id="behind a colon"),
        pytest.param("PIN=1234", ["1234"], id="equals sign"),
        pytest.param("Code: 123 456", ["123 456"], id="threes"),
        pytest.param("PIN 123-456!", ["123-456"], id="threes with a hyphen"),
        pytest.param("OTP 1234 5678", ["1234 5678"], id="fours"),
        pytest.param("TAN: 12-34-56", ["12-34-56"], id="twos"),
        pytest.param("4 8 2 9 1 3", ["4 8 2 9 1 3"], id="one by one"),
        pytest.param("G-482913 is your code", ["G-482913"], id="G-"),
        pytest.param("X7K9-QP2M", ["X7K9-QP2M"], id="capitals and digits"),
        pytest.param("Sign in with A1B2C", ["A1B2C"], id="capitals and digits in one group"),
        pytest.param("Ihr Bestätigungscode lautet 482913.", ["482913"], id="German"),
        pytest.param("Su código es 482913.", ["482913"], id="Spanish"),
        pytest.param("Code 1111. Or code 2222, not 1111.", ["1111", "2222"], id="each once, in order"),
        pytest.param("Your PIN is 2024", ["2024"], id="a year, and nothing else"),
        pytest.param("The code 482913 ends in 2026", ["482913"], id="a year beside a code"),
        pytest.param("We have 482913 users.", [], id="no word for it"),
        pytest.param("The code.\n\nWe have 482913 users.", [], id="no word in the sentence"),
        pytest.param("https://example.org/code/482913?pin=1234", [], id="URL"),
        pytest.param("see https://example.org/ 482913", [], id="not alone beside a URL"),
        pytest.param("code for bob.4829@x.org, 4829@x.org, bob+4829@x.org", [], id="address"),
        pytest.param("code $4829, 4829 EUR, 4829€, € 4829, 4,829.50, 50000%", [], id="amounts"),
        pytest.param("code #4829, # 4829", [], id="number of something"),
        pytest.param("code +1 555 123 4567, (555) 123-4567, 555-1234", [], id="telephone"),
        pytest.param("code 2026-11-23, 23.11.2026, 11/23/2026, 23-11-2026", [], id="date"),
        pytest.param("code 12:3045, 1234:56", [], id="time"),
        pytest.param("code 123, 123456789, a1234, 1234a, ABCDEF, UTF-8", [], id="other lengths, part of words"),
        pytest.param("© 2026 Code Ltd.", [], id="copyright"),
        pytest.param("Sold by Acme Inc. 2026", [], id="alone in its sentence but not on its line"),
        pytest.param(" " * 50 + "x\n" + "." * 50 + "4829" + "." * 50, [], id="too many signs"),
        pytest.param("4829" + "." * 50, [], id="too many signs behind"),
        pytest.param("", [], id="nothing"),
    ],
)
def test_codes_are_found_by_a_rule(text: str, codes: list[str]) -> None:
    """What looks like a code counts where it is alone or called so, and not as part of something else."""
    assert find_codes(text) == codes


@pytest.mark.parametrize(
    ("pattern", "codes"),
    [
        pytest.param(r"[a-z]\d{2}", ["x12", "y34"], id="all of the match"),
        pytest.param(r"ticket ([a-z]\d+)", ["x12"], id="first group"),
        pytest.param(re.compile("TICKET (.)", re.IGNORECASE), ["x"], id="compiled"),
        pytest.param("z", [], id="nothing"),
    ],
)
def test_codes_are_found_by_a_pattern(pattern: str | re.Pattern[str], codes: list[str]) -> None:
    """With a pattern, codes are what it finds, each once, in order."""
    assert find_codes("ticket x12, y34 and x12; 482913", pattern) == codes
