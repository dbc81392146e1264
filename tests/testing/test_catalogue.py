"""The catalogue: each fault happens to a real client, as its kind says, and is over at the second try."""

from __future__ import annotations

import contextlib
import re
import smtplib
import subprocess
import sys
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import pytest
from support import UNMEASURED

from pytest_smtpd import Fault, RecordingServer, smtp_faults
from pytest_smtpd.testing.catalogue import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAILFROM, RCPTTO = "noreply@example.org", "ada@example.org"
MESSAGE_ID = "<4711@example.org>"

#: With all that a client can do.
ALL = smtp_faults(tls="starttls", auth=True, timeout=True)

#: The kinds after which the message is there, and those of which smtplib hears when it sends.
DELIVERED = {"slow", "unusual", "goodbye", "ambiguous"}
FAILED = {"temporary", "permanent", "disconnect", "hang", "ambiguous"}


def patience(fault: Fault, server: RecordingServer) -> float:
    """Return for how many seconds a client waits: not for long for what will never come, until that has happened."""
    return 0.5 if fault.endless and not any(rule.hits for rule in server.rules) else 30


class Sender:
    """What a test of users' would have: code that sends a message, with TLS and a login where the server wants it."""

    def __init__(self, server: RecordingServer, fault: Fault) -> None:
        self._server = server
        self._fault = fault
        self._message = EmailMessage()
        self._message["Message-ID"] = MESSAGE_ID
        self._message["Subject"] = "Welcome"
        self._message.set_content("Hello\n" * 100)

    def send(self) -> None:
        """Try once; what goes wrong at QUIT is of no interest."""
        client = smtplib.SMTP(*self._server.address, timeout=patience(self._fault, self._server))
        try:
            if self._server.ssl_context is not None:
                client.starttls(context=self._server.client_ssl_context)
            if self._fault.stage == "AUTH":
                client.login("ada", "secret")
            client.send_message(self._message, MAILFROM, RCPTTO)
            with contextlib.suppress(smtplib.SMTPException, TimeoutError):
                client.quit()
        finally:
            client.close()

    def send_with_retries(self) -> None:
        """Try again after whatever is no refusal for good."""
        for _ in range(3):
            try:
                self.send()
            except OSError as error:  # all errors of smtplib are
                if code_of(error) >= 500:
                    raise
            else:
                return


def code_of(error: OSError) -> int:
    """Return the reply code in an error of smtplib's; 0 if there is none."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return next(iter(error.recipients.values()))[0]
    return error.smtp_code if isinstance(error, smtplib.SMTPResponseException) else 0


@pytest.fixture
def start() -> Iterator[Callable[[Fault], RecordingServer]]:
    """Return a function that starts a server to which such a fault can happen."""
    with contextlib.ExitStack() as stack:

        def start(fault: Fault) -> RecordingServer:
            options: dict[str, Any] = {"users": {"ada": "secret"}, "auth_mechanisms": ["PLAIN"]}
            if fault.stage in {"STARTTLS", "TLS"}:
                options["tls"] = "starttls"
            return stack.enter_context(RecordingServer(**options))

        yield start


@pytest.mark.parametrize("fault", ALL)
def test_each_fault_happens_once(fault: Fault, start: Callable[[Fault], RecordingServer]) -> None:
    """A fault happens to the first try as its kind says, and the second try arrives."""
    server = start(fault)
    rule = fault.apply(server)
    sender = Sender(server, fault)
    error: OSError | None = None
    try:
        sender.send()
    except OSError as raised:
        error = raised

    assert rule.hits == 1
    if fault.kind != "garbled":  # smtplib says HELO where the answer to EHLO is nonsense
        assert (error is not None) == (fault.kind in FAILED)
        assert len(server.messages) == (fault.kind in DELIVERED)
    if error is not None and fault.kind in {"temporary", "permanent"} and fault.stage != "EHLO":  # it says HELO then
        assert code_of(error) // 100 == (4 if fault.kind == "temporary" else 5)
    if fault.kind == "hang":
        assert isinstance(error, TimeoutError) or "timed out" in str(error)

    server.clear()
    sender.send()
    assert rule.hits == 1
    server.assert_received(subject="Welcome")


@pytest.mark.parametrize("fault", ALL)
def test_the_invariant_of_senders_that_retry(fault: Fault, start: Callable[[Fault], RecordingServer]) -> None:
    """A good sender delivers once whatever happens, but for refusals for good, and for what it can't know."""
    server = start(fault)
    fault.apply(server)
    sender = Sender(server, fault)
    if fault.kind == "permanent":
        with pytest.raises(smtplib.SMTPException):
            sender.send_with_retries()
        server.assert_not_received()
        return
    sender.send_with_retries()
    if fault.kind == "ambiguous":
        with pytest.raises(AssertionError, match=re.escape(f"again, '{MESSAGE_ID}' to <{RCPTTO}>: 2")):
            server.assert_delivered_exactly_once()
    else:
        server.assert_delivered_exactly_once(by="Message-ID", expected=[MESSAGE_ID])


@pytest.mark.parametrize("fault", smtp_faults("TLS", tls="implicit", timeout=True))
def test_faults_of_the_handshake_with_implicit_tls(fault: Fault) -> None:
    """The faults of the handshake happen to clients that begin with it, too."""
    with RecordingServer(tls="implicit") as server:
        rule = fault.apply(server)
        context = server.client_ssl_context

        def send() -> None:
            with smtplib.SMTP_SSL(*server.address, context=context, timeout=patience(fault, server)) as client:
                client.sendmail(MAILFROM, RCPTTO, "Subject: Welcome\r\n\r\nHello\r\n")

        with pytest.raises(OSError) if fault.kind != "slow" else contextlib.nullcontext():  # noqa: PT011 - any is right
            send()
        send()
        assert rule.hits == 1


def test_a_fault_can_last() -> None:
    """With `times=None` a fault happens each time, and what `apply` takes beside goes to `on`."""
    (fault,) = smtp_faults("rcpt-450-busy")
    with RecordingServer() as server:
        rule = fault.apply(server, times=None, rcpttos=RCPTTO)
        sender = Sender(server, fault)
        for _ in range(3):
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                sender.send()
        with smtplib.SMTP(*server.address) as client:
            client.sendmail(MAILFROM, "bob@example.org", "Subject: Hi\r\n\r\nHello\r\n")
        assert rule.hits == 3
        assert server.messages.one().rcpttos == ["bob@example.org"]


def test_a_fault_can_be_for_some_messages() -> None:
    """The function that `on` takes is asked whether a fault is to happen."""
    (fault,) = smtp_faults("content-451-local-error")
    with RecordingServer() as server:
        rule = fault.apply(server, lambda message: message.subject == "Goodbye")
        Sender(server, fault).send()
        assert rule.hits == 0


# What there is.


def test_about_sixty_faults() -> None:
    """By default there are about sixty, which need neither TLS, nor AUTH, nor a time limit."""
    faults = smtp_faults()
    assert 55 <= len(faults) <= 70
    assert not any(fault.needs for fault in faults)
    assert set(KINDS) - {fault.kind for fault in faults} == {"hang"}


def test_names_are_unique_and_describe() -> None:
    """Each fault has a name of its own in kebab case that begins with its stage, a kind, and a sentence."""
    assert len({fault.name for fault in ALL}) == len(ALL)
    for fault in ALL:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", fault.name)
        assert fault.name.startswith(fault.stage.lower())
        assert fault.kind in KINDS
        assert re.fullmatch(r"[A-Z].*\.", fault.description)


def test_pytest_shows_the_name(pytester: pytest.Pytester) -> None:
    """A parametrized test has the fault's name for its ID."""
    pytester.makepyfile(
        """
        import pytest
        from pytest_smtpd import smtp_faults

        @pytest.mark.parametrize("fault", smtp_faults("rcpt-450-busy", "QUIT"))
        def test_it(fault):
            pass
        """
    )
    output = pytester.runpytest_inprocess("--collect-only", "-q").stdout
    output.fnmatch_lines(["*::test_it[[]rcpt-450-busy]", "*::test_it[[]quit-421-shutting-down]"])


@pytest.mark.parametrize(
    ("arguments", "without", "does", "expected"),
    [
        (["rcpt-450-busy"], [], {}, {"rcpt-450-busy"}),
        (["DATA"], ["disconnect", "data-250-instead-of-354"], {}, {"data-421-shutting-down", "data-451-local-error", "data-554-refused"}),
        (["goodbye", "connect-slow"], ["quit-reset", "quit-closed"], {}, {"connect-slow", "quit-421-shutting-down", "quit-500-refused"}),
        (["hang"], ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"], {"timeout": True}, {"content-hang"}),
        (["TLS"], [], {"tls": "implicit"}, {"tls-closed", "tls-reset", "tls-slow", "tls-plain-text"}),
        (["slow"], ["CONTENT", "CONNECT", "EHLO", "RCPT"], {"tls": "starttls"}, {"starttls-slow", "tls-slow"}),
        (["AUTH"], ["permanent", "temporary", "disconnect"], {"auth": True}, {"auth-slow", "auth-noise"}),
        (["rcpt-slow"], ["hang"], {}, {"rcpt-slow"}),
    ],
)  # fmt: skip
def test_selection(arguments: list[str], without: list[str], does: dict[str, Any], expected: set[str]) -> None:
    """Names, kinds and stages select, and leave out; and only what the client can meet."""
    assert {fault.name for fault in smtp_faults(*arguments, without=without, **does)} == expected


def test_what_a_client_does_adds_to_the_default() -> None:
    """What the client does adds faults, and takes none away."""
    plain, more = smtp_faults(), smtp_faults(tls="implicit", auth=True)
    assert [fault for fault in more if not fault.needs] == plain
    assert {fault.stage for fault in more} - {fault.stage for fault in plain} == {"TLS", "AUTH"}
    assert {fault.stage for fault in ALL} - {fault.stage for fault in more} == {"STARTTLS"}


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["rcpt-45-busy"], {}, "'rcpt-45-busy' is no fault, no kind and no stage of faults: did you mean 'rcpt-450-busy'?"),
        (["tempory"], {}, "did you mean 'temporary'?"),
        (["rcpt"], {}, "did you mean 'RCPT'?"),
        (["?"], {}, "'?' is no fault, no kind and no stage of faults: kinds are temporary, permanent,"),
        ([], {"without": ["XYZ"]}, "'XYZ' is no fault"),
        (["hang"], {}, "'hang' is nothing for this client, unless you say timeout=True"),
        (["STARTTLS"], {"tls": "implicit"}, "'STARTTLS' is nothing for this client, unless you say tls=\"starttls\""),
        (["auth-hang"], {"auth": True}, "'auth-hang' is nothing for this client, unless you say auth=True, timeout=True"),
        ([], {"tls": True}, 'tls is "starttls", "implicit" or None, not True'),
    ],
)  # fmt: skip
def test_selection_of_nothing(arguments: list[str], options: dict[str, Any], message: str) -> None:
    """What means no fault, or none that the client meets, is a ValueError that says what to do."""
    with pytest.raises(ValueError, match=re.escape(message)):
        smtp_faults(*arguments, **options)


@pytest.mark.parametrize(("arguments", "without"), [([["temporary"]], []), ([], [["temporary"]])])
def test_names_go_one_by_one(arguments: list[Any], without: list[Any]) -> None:
    """A list where a name is meant is a TypeError that says how names go."""
    error = "names, kinds and stages are strings, one by one: smtp_faults('temporary', 'RCPT'), not ['temporary']"
    with pytest.raises(TypeError, match=re.escape(error)):
        smtp_faults(*arguments, without=without)


def test_without_takes_a_list() -> None:
    """A text for `without`, which would be taken letter by letter, is a TypeError."""
    with pytest.raises(TypeError, match=r"without takes a list of names, kinds and stages: \['hang'\]"):
        smtp_faults(without="hang")


def test_the_catalogue_is_light() -> None:
    """Whoever parametrizes a test imports neither the server nor ssl at collection time."""
    code = "import sys; from pytest_smtpd import smtp_faults; smtp_faults(); print(*sys.modules)"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=UNMEASURED)  # noqa: S603 - this
    modules = set(ran.stdout.split())
    assert not modules & {"ssl", "_ssl", "socket", "selectors", "email", "pytest_smtpd.smtpd"}
    assert {name for name in modules if name.startswith("pytest_smtpd.")} == {
        "pytest_smtpd.testing",
        "pytest_smtpd.testing.catalogue",
    }
