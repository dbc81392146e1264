"""CHUNKING and BINARYMIME (RFC 3030): chunks in any pieces, refused ones, pipelined ones, and what is kept of them."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support import FULL, STRICT, Dialogue, peak, split_replies

from pytest_smtpd.protocol.content import Chunk, ContentStore, content_lints
from pytest_smtpd.protocol.mail import Content
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.protocol.session import NEED_DATA, Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_smtpd.protocol.events import Event
    from pytest_smtpd.protocol.state import Settings

EHLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<ada@example.org>\r\n"
RCPT = b"RCPT TO:<bob@example.org>\r\n"
NOOP = b"NOOP\r\n"
MIB = 1024 * 1024

MODES = [pytest.param(FULL, id="default"), pytest.param(STRICT, id="strict")]
SMALL = replace(FULL, data_size_limit=100)


def bdat(data: bytes, last: bytes = b"") -> bytes:
    """Make a chunk."""
    return b"BDAT %d%s\r\n%s" % (len(data), last, data)


def chunks(*parts: bytes) -> list[bytes]:
    """Make a message of chunks, the last of which is marked as that."""
    return [*map(bdat, parts[:-1]), bdat(parts[-1], b" LAST")]


def describe(content: Content) -> tuple[object, ...]:
    """Return all there is to know of a message: its octets and their number, envelope and lints."""
    transaction = content.transaction
    lints = list(content_lints(content.data, transaction.parameters))
    return content.data, content.store.size, content.rcpttos, transaction.parameters, list(transaction.lints), lints


@dataclass
class Driver:
    """Drives a session as the server's thread does, large content past the session's input."""

    settings: Settings = FULL
    #: The size of the buffer; 0: everything goes through the input.
    scratch: int = 0
    answers: Mapping[str, Reply] = field(default_factory=dict)
    stages: list[str] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    #: All there is to know of each.
    outcomes: list[tuple[object, ...]] = field(default_factory=list)
    #: How many times octets came through the buffer.
    buffered: int = 0

    def __post_init__(self) -> None:
        """Greet."""
        self.session = Session(self.settings)
        self.session.send(self.session.connect().reply)
        self.session.data_to_send()
        self._scratch = bytearray(self.scratch)

    def _settle(self, event: Event) -> None:
        reply = self.answers.get(event.stage, event.reply)
        self.stages.append(event.stage)
        if isinstance(event, Content) and event.decide(reply):
            self.outcomes.append(describe(event))
            self.messages.append(event.data)
        self.session.send(reply)

    def _advance(self) -> None:
        while (event := self.session.next_event()) is not NEED_DATA:
            self._settle(event)

    def take(self, *segments: bytes) -> str:
        """Give the session these segments; return the codes of the replies."""
        for segment in segments:
            self._take(segment)
        return Dialogue(split_replies(self.session.data_to_send())).codes

    def _take(self, segment: bytes) -> None:
        while self.scratch and segment and self.session.wants_buffer:
            with self.session.get_buffer(self._scratch) as buffer:
                size = min(len(buffer), len(segment))
                buffer[:size] = segment[:size]
            self.session.buffer_updated(size)
            self.buffered += 1
            segment = segment[size:]
            self._advance()
        self.session.receive_data(segment)
        self._advance()


def in_transaction(settings: Settings = FULL, scratch: int = 0, **answers: Reply) -> Driver:
    """Make a driver whose client may send content."""
    driver = Driver(settings, scratch, answers)
    assert driver.take(EHLO, MAIL, RCPT) == "250 250 2.1.0 250 2.1.5"
    return driver


def pieces(whole: bytes, size: int) -> list[bytes]:
    """Cut octets into pieces of that size."""
    return [whole[start : start + size] for start in range(0, len(whole), size)]


# Every split.

#: What would be looked at if chunks were searched.
TRICKY = b"\r\n.\r\n"


def splits(data: bytes) -> Iterable[list[bytes]]:
    """Cut data in every possible way."""
    for number in range(len(data)):
        for cuts in combinations(range(1, len(data)), number):
            yield [data[start:end] for start, end in pairwise([0, *cuts, len(data)])]


@pytest.mark.parametrize("settings", MODES)
@pytest.mark.parametrize("scratch", [0, 1, 2, 3, 100])
def test_chunks_of_every_split_are_one_message(scratch: int, settings: Settings) -> None:
    """However content is cut into chunks, and they into segments, the octets of the message are the same."""
    for parts in splits(TRICKY):
        wire = b"".join(chunks(*parts))
        for size in (1, 2, 3, len(wire)):
            driver = in_transaction(settings, scratch)
            assert driver.take(*pieces(wire, size)) == " ".join(["250 2.0.0"] * len(parts))
            assert (driver.messages, driver.stages[-1]) == ([TRICKY], "CONTENT")


@pytest.mark.parametrize("scratch", [5, 64, 1000, 100_000])
@pytest.mark.parametrize("segment", [1, 7, 1000, 70_000])
def test_large_chunks_go_through_the_buffer(scratch: int, segment: int) -> None:
    """A chunk that comes in more segments than one goes past the input, and what follows it does not."""
    data = bytes(range(256)) * (80 if segment < 100 else 800)
    driver = in_transaction(FULL, scratch)
    wire = b"".join(chunks(data, data[:100], data)) + NOOP
    assert driver.take(*pieces(wire, segment)) == "250 2.0.0 250 2.0.0 250 2.0.0 250 2.0.0"
    assert driver.messages == [data + data[:100] + data]
    assert driver.buffered > 0
    assert driver.stages[-1] == "NOOP"


def test_the_buffer_takes_no_more_than_the_chunk() -> None:
    """What is given out ends where the chunk does, so that the octets of the next command come as input."""
    driver = in_transaction()
    driver.take(b"BDAT 10\r\nab")
    session = driver.session
    scratch = bytearray(100)
    sizes = []
    for octets in (b"cd", b"efgh", b"ij"):
        assert session.wants_buffer
        with session.get_buffer(scratch) as buffer:
            sizes.append(len(buffer))
            buffer[: len(octets)] = octets
        session.buffer_updated(len(octets))
    assert sizes == [8, 6, 2]
    assert driver.take(b"", b"BDAT 0 LAST\r\n") == "250 2.0.0 250 2.0.0"
    assert (driver.messages, session.wants_buffer) == ([b"abcdefghij"], False)


def test_a_chunk_is_counted_whichever_way_its_octets_come() -> None:
    """A Chunk takes pieces and filled buffers in turn, and returns what follows it."""
    store = ContentStore()
    chunk = Chunk(6, store)
    scratch = bytearray(4)
    assert chunk.feed(b"a") == b""
    with chunk.get_buffer(scratch) as buffer:
        buffer[:3] = b"bcd"
    assert chunk.buffer_updated(3) == b""
    assert not chunk.finished
    assert chunk.feed(b"efgh") == b"gh"
    assert (chunk.finished, store.data, store.size) == (True, b"abcdef", 6)


def test_an_empty_chunk_is_finished_from_the_start() -> None:
    """BDAT 0 waits for nothing, and takes nothing of what follows."""
    assert Chunk(0, ContentStore()).finished
    driver = in_transaction()
    assert driver.take(b"BDAT 0\r\nBDAT 0\r\nBDAT 2 LAST\r\nhiNOOP\r\n") == " ".join(["250 2.0.0"] * 4)
    assert driver.messages == [b"hi"]


def test_the_answer_to_a_chunk_comes_behind_its_octets() -> None:
    """As long as octets of a chunk are missing there is no reply (RFC 3030 2)."""
    driver = in_transaction()
    assert [driver.take(octets) for octets in (b"BDAT 3 LAST\r\n", b"a", b"b")] == ["", "", ""]
    assert driver.take(b"c") == "250 2.0.0"


def test_chunks_without_an_end_leave_their_transaction_open() -> None:
    """Where a client goes away in its chunks there is no message, and the envelope is there to be reported."""
    driver = in_transaction()
    assert driver.take(b"BDAT 3\r\nabcBDAT 3 LAST\r\nde") == "250 2.0.0"
    assert driver.messages == []
    transaction = driver.session.state.transaction
    assert transaction is not None
    assert transaction.reverse_path.mailbox == "ada@example.org"


# Refused chunks.

#: What would do harm if it were read as commands.
HARM = b"QUIT\r\nRSET\r\nMAIL FROM:<evil@example.org>\r\n"
NO = Reply(451, "Not now", "4.3.0")


@pytest.mark.parametrize("last", [b"", b" LAST"], ids=["first", "last"])
@pytest.mark.parametrize("scratch", [0, 3, 100])
@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("way", "code"),
    [
        pytest.param([], "503 5.5.1", id="before EHLO"),
        pytest.param([EHLO], "503 5.5.1", id="before MAIL"),
        pytest.param([EHLO, MAIL], "503 5.5.1", id="before RCPT"),
        pytest.param([EHLO, MAIL, b"RCPT TO:<>\r\n"], "503 5.5.1", id="all recipients refused"),
        pytest.param([EHLO, MAIL, RCPT, bdat(b"x", b" LAST")], "503 5.5.1", id="behind the last"),
        pytest.param([EHLO, MAIL, RCPT, bdat(b"x" * 90)], "552 5.3.4", id="too large"),
        pytest.param([EHLO, MAIL, RCPT, bdat(b"x" * 101)], "503 5.5.1", id="behind one that was too large"),
    ],
)
def test_a_chunk_that_can_not_be_taken_is_no_commands(
    way: list[bytes], code: str, size: int, scratch: int, last: bytes
) -> None:
    """It is received and dropped, the last one too, and the command behind it is answered in step."""
    driver = Driver(SMALL, scratch)
    driver.take(*way)
    before = list(driver.messages)
    assert driver.take(*pieces(bdat(HARM, last) + NOOP, size)) == f"{code} 250 2.0.0"
    assert (driver.messages, driver.session.state.closing) == (before, False)


@pytest.mark.parametrize(("answer", "code"), [(NO, "451 4.3.0"), (Reply(554, "No", "5.6.0"), "554 5.6.0")])
def test_a_refused_chunk_ends_its_transaction(answer: Reply, code: str) -> None:
    """Behind a chunk that the driver refuses, pipelined ones are refused and a new transaction may begin."""
    driver = in_transaction(BDAT=answer)
    assert driver.take(bdat(b"abc")) == code
    driver.answers = {}
    assert driver.take(bdat(HARM) + bdat(HARM, b" LAST")) == "503 5.5.1 503 5.5.1"
    assert driver.take(MAIL, RCPT, *chunks(b"x")) == "250 2.1.0 250 2.1.5 250 2.0.0"
    assert driver.messages == [b"x"]


@pytest.mark.parametrize("answer", [NO, Reply(554, "No", "5.6.0")], ids=["451", "554"])
def test_a_refused_last_chunk_ends_its_transaction(answer: Reply) -> None:
    """The last chunk is the question about the message; a refusal leaves nothing behind."""
    driver = in_transaction(CONTENT=answer)
    assert driver.take(*chunks(b"abc", b"de"), RCPT, MAIL).split()[0] == "250"
    assert driver.stages[-4:] == ["BDAT", "CONTENT", "RCPT", "MAIL"]
    assert driver.messages == []
    assert driver.session.state.transaction is not None
    assert driver.session.state.transaction.chunks is None


def test_421_to_a_chunk_closes() -> None:
    """Behind a 421 nothing is read."""
    driver = in_transaction(BDAT=Reply(421, "Goodbye", "4.3.2"))
    assert driver.take(bdat(b"abc") + bdat(b"d", b" LAST"), NOOP) == "421 4.3.2"
    assert (driver.messages, driver.session.state.closing) == ([], True)


@pytest.mark.parametrize("accepted", [b"BDAT x", b"BDAT", b"BDAT 3 FOO"])
def test_a_bdat_that_is_accepted_although_it_is_wrong_adds_nothing(accepted: bytes) -> None:
    """Told to answer 250 to a syntax error, a session stays in its transaction, whose chunks go on."""
    driver = in_transaction(BDAT=Reply(250, "Fine"))
    driver.take(bdat(b"ab"), accepted + b"\r\n", *chunks(b"cd"))
    assert driver.messages == [b"abcd"]


def test_chunks_that_are_accepted_without_recipients_are_dropped() -> None:
    """Told to answer 250 to chunks that it can't take, a session has no message of them."""
    driver = Driver(FULL, 0, {"BDAT": Reply(250, "Fine")})
    assert driver.take(EHLO, bdat(b"ab"), bdat(b"cd", b" LAST"), NOOP).endswith(" 250 2.0.0")
    assert (driver.messages, "CONTENT" in driver.stages) == ([], False)


@pytest.mark.parametrize(
    "argument",
    [b"", b" ", b" x", b" -1", b" +1", b" 1.5", b" 3LAST", b" 3 LAS", b" 3 LAST LAST", b" 3,4", b" " + b"1" * 21],
)
def test_behind_a_syntax_error_commands_are_read(argument: bytes) -> None:
    """Who says no number announces no octets: 501, and the next line is a command."""
    driver = in_transaction()
    assert driver.take(b"BDAT" + argument + b"\r\n" + NOOP) == "501 5.5.4 250 2.0.0"


@pytest.mark.parametrize(
    "argument", [b" 3 LAST", b" 3  LAST", b" 3 Last ", b"   03 LAST", b" 00000000000000000003 last"]
)
def test_numbers_and_last_may_be_written_otherwise(argument: bytes) -> None:
    """Case, blanks and leading zeros make no difference."""
    driver = in_transaction()
    assert driver.take(b"BDAT" + argument + b"\r\nabc") == "250 2.0.0"
    assert driver.messages == [b"abc"]


# Pipelining.


def test_a_transaction_of_chunks_in_one_segment() -> None:
    """BDAT may be pipelined with all that comes before and behind (RFC 3030 4.2), also to a strict server."""
    for settings in (FULL, STRICT):
        driver = Driver(settings)
        driver.take(EHLO)
        wire = MAIL + RCPT + b"".join(chunks(b"one\r\n", b"two\r\n"))
        assert driver.take(wire + wire + b"QUIT\r\n") == f"{'250 2.1.0 250 2.1.5 250 2.0.0 250 2.0.0 ' * 2}221 2.0.0"
        assert driver.messages == [b"one\r\ntwo\r\n"] * 2
        assert not driver.session.state.lints


def test_each_message_has_its_own_chunks() -> None:
    """Nothing of a message that was begun and given up shows up in the next one."""
    driver = in_transaction()
    driver.take(bdat(b"given up"), b"RSET\r\n", MAIL, RCPT, *chunks(b"a", b"b"), MAIL, RCPT, *chunks(b"c"))
    assert driver.messages == [b"ab", b"c"]


@pytest.mark.parametrize("settings", MODES)
@pytest.mark.parametrize("body", ["BINARYMIME", "binarymime", "BinaryMime"])
def test_binary_content_comes_in_chunks_only(body: str, settings: Settings) -> None:
    """Behind BODY=BINARYMIME, in any case, DATA is answered with 503, and chunks are taken as they are (RFC 3030 3)."""
    data = b"\0\r\xff\n" * 1000
    driver = Driver(settings)
    mail = f"MAIL FROM:<ada@example.org> BODY={body}\r\n".encode()
    assert driver.take(EHLO, mail, RCPT, b"DATA\r\n") == "250 250 2.1.0 250 2.1.5 503 5.5.1"
    assert driver.take(*chunks(data[:9], data[9:])) == "250 2.0.0 250 2.0.0"
    assert driver.messages == [data]
    ((*_, lints),) = driver.outcomes
    assert lints == []


def test_a_strict_server_looks_into_chunks_as_into_data() -> None:
    """Bare line feeds that are not declared as binary are refused behind the last chunk."""
    driver = in_transaction(STRICT)
    assert driver.take(*chunks(b"a\n", b"b\r\n"), NOOP) == "250 2.0.0 550 5.5.2 250 2.0.0"
    assert driver.messages == []


# Memory.


BLOCK = b"x" * 65_536


@pytest.mark.parametrize("scratch", [0, 65_536], ids=["input", "buffer"])
@pytest.mark.parametrize(
    "way",
    [
        pytest.param([], id="before EHLO"),
        pytest.param([EHLO, MAIL], id="before RCPT"),
        pytest.param([EHLO, MAIL, RCPT], id="too large"),
        pytest.param([EHLO, MAIL, RCPT, bdat(b"x" * 101)], id="behind one that was too large"),
    ],
)
def test_nothing_is_kept_of_chunks_that_are_refused(way: list[bytes], scratch: int) -> None:
    """Of 16 MiB that can't be taken no more is in memory at any time than the segment that has come."""
    driver = Driver(SMALL, scratch)
    driver.take(*way)
    driver.take(b"BDAT %d LAST\r\nxx" % (16 * MIB + 2))

    def run() -> None:
        for _ in range(16 * MIB // len(BLOCK)):
            driver.take(BLOCK)

    assert peak(run) < 3 * len(BLOCK)
    assert driver.stages[-1] in {"BDAT", "CONTENT"}
    assert driver.take(NOOP) == "250 2.0.0"
    assert driver.messages == []


def test_many_refused_chunks_leave_nothing() -> None:
    """A hundred chunks without a transaction take no more memory than one."""
    driver = Driver(FULL)
    driver.take(EHLO)

    def run() -> None:
        for _ in range(100):
            assert driver.take(b"BDAT 65536\r\n", BLOCK) == "503 5.5.1"
            driver.stages.clear()

    assert peak(run) < 4 * len(BLOCK)


def test_what_was_taken_is_let_go_with_a_chunk_that_is_too_large() -> None:
    """Above the limit the chunks before are dropped as well, at once."""
    driver = in_transaction(replace(FULL, data_size_limit=MIB))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        driver.take(b"BDAT %d\r\n" % MIB, *[BLOCK] * 16)
        assert tracemalloc.get_traced_memory()[0] - before > MIB
        driver.take(b"BDAT 2\r\nx")
        assert tracemalloc.get_traced_memory()[0] - before < MIB / 4
    finally:
        tracemalloc.stop()
    assert driver.take(b"x") == "552 5.3.4"


@pytest.mark.parametrize("scratch", [0, 65_536], ids=["input", "buffer"])
def test_chunks_are_kept_once(scratch: int) -> None:
    """8 MiB of chunks take about 1.2 times their size, getting the data included."""
    driver = in_transaction(FULL, scratch)

    def run() -> None:
        for last in (b"", b"", b"", b" LAST"):
            driver.take(b"BDAT %d%s\r\n" % (2 * MIB, last), *[BLOCK] * (2 * MIB // len(BLOCK)))

    assert peak(run) < 1.25 * 8 * MIB
    assert [len(message) for message in driver.messages] == [8 * MIB]


def test_a_number_of_twenty_digits_allocates_nothing() -> None:
    """A chunk that is announced and never sent costs nothing."""
    driver = in_transaction()
    assert peak(lambda: driver.take(b"BDAT %d LAST\r\n" % (10**20 - 1))) < 10_000


# DATA and BDAT.


def stuffed(data: bytes) -> bytes:
    """Make mail data of content that ends a line."""
    return (b"\r\n" + data).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


LINES = st.lists(
    st.sampled_from(
        [b".", b"..", b"", b"Subject: x", b"a\nb", b"a\rb", b"\n.", b"\xc3\xa9", b"x" * 999, b"QUIT", b"\0"]
    )
    | st.binary(max_size=8),
    max_size=8,
)
CONTENTS = LINES.map(lambda lines: b"".join(line + b"\r\n" for line in lines))


@given(
    data=CONTENTS,
    cuts=st.lists(st.integers(0, 60), max_size=5),
    size=st.integers(1, 70),
    scratch=st.sampled_from([0, 1, 7, 100]),
    limit=st.sampled_from([0, 10, 30]),
    strict=st.booleans(),
)
@hypothesis_settings(deadline=None, max_examples=300)
def test_by_data_and_by_bdat_a_message_is_the_same(  # noqa: PLR0913
    data: bytes, cuts: list[int], size: int, scratch: int, limit: int, *, strict: bool
) -> None:
    """Content has the same octets, size, lints and answer, whichever way it comes and however it is cut."""
    settings = replace(FULL, data_size_limit=limit, strict=strict)
    by_data = in_transaction(settings)
    final = by_data.take(b"DATA\r\n", stuffed(data)).removeprefix("354 ")
    parts: Sequence[bytes] = [data[start:end] for start, end in pairwise([0, *sorted(cuts), len(data)])]
    by_bdat = in_transaction(settings, scratch)
    replies = by_bdat.take(*pieces(b"".join(chunks(*parts)), size))
    assert by_bdat.outcomes == by_data.outcomes
    if final == "552 5.3.4":
        # Said to the chunk that is one too many; behind it there is no transaction.
        assert replies.replace("250 2.0.0", "").split()[:2] == ["552", "5.3.4"]
    else:
        assert replies == " ".join(["250 2.0.0"] * (len(parts) - 1) + [final])
