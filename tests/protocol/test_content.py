"""Content on the wire: where it ends, what its dots mean, how much of it is kept, what is wrong with it."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import peak

from pytest_smtpd.protocol.content import Chunk, ContentStore, MailData, content_lints
from pytest_smtpd.protocol.lints import Lint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_smtpd.protocol.grammar import Parameters

MIB = 1 << 20
END = b"\r\n.\r\n"

#: What the octets around an end can be made of; few, so that ends and near misses are frequent.
STREAMS = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b".\r\n", END, b"x", b"\0"])
    | st.binary(min_size=1, max_size=3),
    max_size=30,
).map(b"".join)
CUTS = st.lists(st.integers(min_value=0, max_value=40), max_size=20)


def simply_read(stream: bytes) -> tuple[bytes, bytes] | None:
    """Part a stream into content and what follows it as the standard tells it, line by line; None: no end."""
    lines = stream.split(b"\r\n")
    # The last one lacks its CRLF.
    for number, line in enumerate(lines[:-1]):
        if line == b".":
            content = b"".join(each.removeprefix(b".") + b"\r\n" for each in lines[:number])
            return content, b"\r\n".join(lines[number + 1 :])
    return None


def chunked(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Cut a stream at these positions."""
    positions = [0, *sorted(cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(positions)]


def feed(mail_data: MailData, chunk: bytes) -> bytes:
    """Give it a chunk as it is."""
    return mail_data.feed(chunk)


def receive(mail_data: MailData, chunk: bytes) -> bytes:
    """Give it a chunk through its buffer, in which an older stream has left its end."""
    scratch = bytearray(END * 100)
    with mail_data.get_buffer(scratch) as buffer:
        buffer[: len(chunk)] = chunk
    return mail_data.buffer_updated(len(chunk))


def receive_scarcely(mail_data: MailData, chunk: bytes) -> bytes:
    """Give it a chunk through a buffer with room for hardly more than what it carries."""
    scratch = bytearray(5)
    while chunk:
        with mail_data.get_buffer(scratch) as buffer:
            part = chunk[: len(buffer)]
            buffer[: len(part)] = part
        if rest := mail_data.buffer_updated(len(part)):
            return rest + chunk[len(part) :]
        chunk = chunk[len(part) :]
        if mail_data.finished:
            return chunk
    return b""


def alternate(mail_data: MailData, chunk: bytes) -> bytes:
    """Give it the first chunk as it is and the others through its buffer, as a session does."""
    return receive(mail_data, chunk) if mail_data.store.size else feed(mail_data, chunk)


WAYS = [feed, receive, receive_scarcely, alternate]


def read(chunks: list[bytes], limit: int = 0, way: Callable[[MailData, bytes], bytes] = feed) -> tuple[MailData, bytes]:
    """Give chunks to a MailData up to the end of content; return it with all that follows the end."""
    mail_data = MailData(ContentStore(limit))
    for number, chunk in enumerate(chunks):
        rest = way(mail_data, chunk)
        if mail_data.finished:
            return mail_data, rest + b"".join(chunks[number + 1 :])
        assert rest == b""
        assert len(mail_data.store.data) == (0 if mail_data.store.too_large else mail_data.store.size)
    return mail_data, b""


# Where content ends.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("stream", "content", "rest"),
    [
        pytest.param(b".\r\n", b"", b"", id="empty"),
        pytest.param(b"\r\n.\r\n", b"\r\n", b"", id="an empty line"),
        pytest.param(b"x\r\n.\r\nNOOP\r\n", b"x\r\n", b"NOOP\r\n", id="a command behind"),
        pytest.param(b"x\r\n.\r\n.\r\n", b"x\r\n", b".\r\n", id="an end behind"),
        pytest.param(b"..\r\n.\r\n", b".\r\n", b"", id="a stuffed dot at once"),
        pytest.param(b"a\r\n..b\r\n...\r\n.\r\n", b"a\r\n.b\r\n..\r\n", b"", id="stuffed dots"),
        pytest.param(b".a\r\n.\rb\r\n.\r\n", b"a\r\n\rb\r\n", b"", id="dots that nobody stuffed"),
        pytest.param(b"\r\r\n\n.\r\n\r\n.\r\n", b"\r\r\n\n.\r\n\r\n", b"", id="near misses"),
    ],
)
def test_the_end_is_found_whatever_the_chunks(
    stream: bytes, content: bytes, rest: bytes, way: Callable[[MailData, bytes], bytes]
) -> None:
    """Cut in two at every position, or octet by octet, a stream gives the same content and the same rest."""
    octets = [bytes([octet]) for octet in stream]
    for chunks in ([stream[:cut], stream[cut:]] for cut in range(len(stream) + 1)):
        mail_data, left = read(chunks, way=way)
        assert (mail_data.finished, mail_data.store.data, left) == (True, content, rest)
    mail_data, left = read(octets, way=way)
    assert (mail_data.finished, mail_data.store.data, left, mail_data.store.size) == (True, content, rest, len(content))


@given(stream=STREAMS, cuts=CUTS, way=st.sampled_from(WAYS))
@example(stream=b"\r\n\r.\r\n..\r\n.\r\n", cuts=[1, 2, 3, 5, 7], way=alternate)
@settings(deadline=None, max_examples=500)
def test_any_stream_in_any_chunks_is_read_as_the_standard_says(
    stream: bytes, cuts: list[int], way: Callable[[MailData, bytes], bytes]
) -> None:
    """Fed or received through the buffer, content is what a simple line by line reading gives."""
    mail_data, rest = read(chunked(stream, cuts), way=way)
    expected = simply_read(stream)
    assert mail_data.finished is (expected is not None)
    if expected is not None:
        assert (mail_data.store.data, rest, mail_data.store.size) == (*expected, len(expected[0]))


@given(stream=STREAMS, cuts=CUTS, limit=st.integers(min_value=1, max_value=20), way=st.sampled_from(WAYS))
@settings(deadline=None, max_examples=300)
def test_a_limit_changes_nothing_but_what_is_kept(
    stream: bytes, cuts: list[int], limit: int, way: Callable[[MailData, bytes], bytes]
) -> None:
    """With a limit the end is found where it is without one, and the size is the same; the data is all or nothing."""
    mail_data, rest = read(chunked(stream + END, cuts), limit, way)
    unlimited, _ = read([stream + END])
    assert (mail_data.store.size, rest) == (unlimited.store.size, (simply_read(stream + END) or (b"", b""))[1])
    assert mail_data.store.too_large is (unlimited.store.size > limit)
    assert mail_data.store.data == (b"" if unlimited.store.size > limit else unlimited.store.data)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("limit", "too_large", "data"), [(0, False, b"ab\r\n"), (4, False, b"ab\r\n"), (3, True, b""), (1, True, b"")]
)
def test_the_limit_counts_content_with_its_last_line_end(
    limit: int, data: bytes, way: Callable[[MailData, bytes], bytes], *, too_large: bool
) -> None:
    """Content of exactly the limit is taken, of one octet more is not; no limit is written 0."""
    for chunks in ([b"ab\r\n.\r\nNOOP\r\n"], [b"ab\r\n.\r\n", b"NOOP\r\n"], [b"a", b"b\r", b"\n.\r\nNOOP\r\n"]):
        mail_data, rest = read(chunks, limit, way)
        assert (mail_data.store.size, mail_data.store.too_large, mail_data.store.data, rest) == (
            4,
            too_large,
            data,
            b"NOOP\r\n",
        )


def test_the_size_grows_while_content_arrives() -> None:
    """The store has the octets that certainly are content, without stuffed dots and what may be the end."""
    mail_data = MailData(ContentStore())
    kept = []
    for chunk in (b"ab", b"\r\n", b"..", b"\r\n.", b"\r", b"\n"):
        mail_data.feed(chunk)
        assert mail_data.store.size == len(mail_data.store.data)
        kept.append(mail_data.store.data)
    assert kept == [b"ab", b"ab", *[b"ab\r\n."] * 3, b"ab\r\n.\r\n"]


# What keeps it.


@pytest.mark.parametrize(
    ("limit", "parts", "data", "size"),
    [
        pytest.param(0, [], b"", 0, id="nothing"),
        pytest.param(0, [b"ab", b"", b"c"], b"abc", 3, id="no limit"),
        pytest.param(3, [b"ab", b"c"], b"abc", 3, id="at the limit"),
        pytest.param(3, [b"ab", b"cd"], b"", 4, id="above the limit"),
        pytest.param(3, [b"abcd", b"", b"e"], b"", 5, id="more above the limit"),
    ],
)
def test_a_store_keeps_all_or_nothing(limit: int, parts: list[bytes], data: bytes, size: int) -> None:
    """A store has all that was written to it, or, above its limit, nothing but how much that was."""
    pieces, whole = ContentStore(limit), ContentStore(limit)
    for part in parts:
        pieces.write(memoryview(part))
    whole.write_whole(b"".join(parts))
    for store in (pieces, whole):
        assert (store.data, store.size, store.too_large) == (data, size, 0 < limit < size)


def test_a_message_in_one_piece_is_kept_without_a_copy() -> None:
    """What was written whole is the very object that was written."""
    store, octets = ContentStore(), b"x" * 10_000
    store.write_whole(octets)
    assert store.data is octets


# Chunks, which are counted.


def receive_chunk(chunk: Chunk, piece: bytes) -> bytes:
    """Give a chunk a piece through its buffer, as much of it as there is room for; return what is left."""
    scratch = bytearray(7)
    while piece and not chunk.finished:
        with chunk.get_buffer(scratch) as buffer:
            part = piece[: len(buffer)]
            buffer[: len(part)] = part
        assert chunk.buffer_updated(len(part)) == b""
        piece = piece[len(part) :]
    return piece


def feed_chunk(chunk: Chunk, piece: bytes) -> bytes:
    """Give a chunk a piece as it is; return what is left."""
    return piece if chunk.finished else chunk.feed(piece)


@given(
    stream=STREAMS,
    size=st.integers(min_value=0, max_value=40),
    cuts=CUTS,
    way=st.sampled_from([feed_chunk, receive_chunk]),
)
@settings(deadline=None)
def test_a_chunk_has_as_many_octets_as_were_announced(
    stream: bytes, size: int, cuts: list[int], way: Callable[[Chunk, bytes], bytes]
) -> None:
    """Whatever the octets are and however they are cut, so many of them are the chunk, and the others follow it."""
    store = ContentStore()
    chunk = Chunk(size, store)
    rest = b"".join([way(chunk, piece) for piece in chunked(stream, cuts)])
    assert (store.data, rest) == (stream[:size], stream[size:])
    assert chunk.finished is (len(stream) >= size)


def test_chunks_share_a_store() -> None:
    """Chunk by chunk a message grows in one store, and its limit is that of all of them."""
    store = ContentStore(limit=5)
    Chunk(3, store).feed(b"abc")
    Chunk(2, store).feed(b"de")
    assert store.data == b"abcde"
    Chunk(1, store).feed(b"f")
    assert (store.too_large, store.size) == (True, 6)


# Memory and work, measured in octets that the interpreter allocates.


def content_of(size: int, chunk: bytes) -> Iterable[bytes]:
    """Return chunks, all of them the same object, and an end behind them."""
    return [*[chunk] * (size // len(chunk)), END]


#: 64 KiB of lines; in the second each begins with a stuffed dot.
PLAIN = (b"x" * 62 + b"\r\n") * 1024
DOTTED = (b".." + b"x" * 60 + b"\r\n") * 1024


@pytest.mark.parametrize("chunk", [PLAIN, DOTTED], ids=["plain", "stuffed dots"])
def test_content_above_the_limit_is_not_kept(chunk: bytes) -> None:
    """8 MiB into a limit of 1 MiB take no more memory than the limit and a few chunks."""
    mail_data = MailData(ContentStore(limit=MIB))

    def run() -> None:
        for each in content_of(8 * MIB, chunk):
            mail_data.feed(each)

    assert peak(run) < 1.5 * MIB
    assert (mail_data.finished, mail_data.store.too_large, mail_data.store.data) == (True, True, b"")


@pytest.mark.parametrize("chunk", [PLAIN, DOTTED], ids=["plain", "stuffed dots"])
def test_content_is_kept_once(chunk: bytes) -> None:
    """8 MiB of content take less than 1.2 times their size at the peak, getting the data included."""
    mail_data = MailData(ContentStore(limit=16 * MIB))

    def run() -> None:
        for each in content_of(8 * MIB, chunk):
            mail_data.feed(each)
        assert len(mail_data.store.data) == mail_data.store.size

    assert peak(run) < 1.2 * 8 * MIB


def test_the_buffer_takes_content_without_a_copy_of_the_chunk() -> None:
    """Received through the buffer, plain content takes no memory but that in which it is kept."""
    mail_data = MailData(ContentStore(limit=MIB))
    mail_data.feed(PLAIN)
    scratch = bytearray(len(PLAIN) + 5)
    with mail_data.get_buffer(scratch) as buffer:
        buffer[: len(PLAIN)] = PLAIN

    def run() -> None:
        for _ in range(100):
            mail_data.get_buffer(scratch)
            mail_data.buffer_updated(len(PLAIN))

    # What is kept grows up to the limit, by an eighth more than it needs.
    assert peak(run) < 1.2 * MIB


def octets_allocated(chunks: Iterable[bytes]) -> int:
    """Return the sum of what each chunk makes the interpreter allocate at a time."""
    mail_data = MailData(ContentStore())
    total = 0
    for chunk in chunks:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        mail_data.feed(chunk)
        total += tracemalloc.get_traced_memory()[1] - before
    assert mail_data.finished
    return total


@pytest.mark.parametrize("chunk", [PLAIN[:1024], DOTTED[:1024]], ids=["plain", "stuffed dots"])
def test_the_work_grows_with_the_content_and_no_faster(chunk: bytes) -> None:
    """Four times the content takes about four times the memory traffic, not sixteen times."""
    tracemalloc.start()
    try:
        once = octets_allocated(content_of(MIB // 4, chunk))
        four_times = octets_allocated(content_of(MIB, chunk))
    finally:
        tracemalloc.stop()
    assert 3 * once < four_times < 5 * once


# What a client should not have sent.


@pytest.mark.parametrize(
    ("data", "parameters", "lints"),
    [
        pytest.param(b"", (), [], id="empty"),
        pytest.param(b"a\r\nb\r\n", (), [], id="nothing wrong"),
        pytest.param(b"a\nb\r\n", (), [Lint.BARE_LF], id="bare LF"),
        pytest.param(b"a\rb\r\n", (), [Lint.BARE_CR], id="bare CR"),
        pytest.param(b"a\r\r\n", (), [Lint.BARE_CR], id="CR CRLF"),
        pytest.param(b"a\n\r\r\n", (), [Lint.BARE_LF, Lint.BARE_CR], id="LF CR CRLF"),
        pytest.param(b"x" * 998 + b"\r\n", (), [], id="998 octets"),
        pytest.param(b"x" * 998 + b"\r\n" + b"y" * 998 + b"\r\n", (), [], id="998 octets twice"),
        pytest.param(b"x" * 999 + b"\r\n", (), [Lint.LONG_LINE], id="999 octets"),
        pytest.param(b"a\r\n" + b"x" * 5000 + b"\r\nb\r\n", (), [Lint.LONG_LINE], id="5000 octets"),
        pytest.param(b"\x80\r\n", (), [Lint.UNDECLARED_8BIT], id="8 bits"),
        pytest.param(b"\x80\r\n", (("BODY", "7BIT"),), [Lint.UNDECLARED_8BIT], id="8 bits as 7BIT"),
        pytest.param(b"\x80\r\n", (("BODY", None),), [Lint.UNDECLARED_8BIT], id="8 bits as nothing"),
        pytest.param(b"\x80\r\n", (("BODY", "8bitMIME"),), [], id="8 bits declared"),
        pytest.param(b"\x80\n\r" + b"x" * 999, (("BODY", "binaryMIME"),), [], id="anything as BINARYMIME"),
        pytest.param(b"\x7f\r\n", (("BODY", "7BIT"),), [], id="7 bits"),
        pytest.param(b"abc\r\n", (("SIZE", "4"),), [Lint.SIZE_EXCEEDED], id="larger than declared"),
        pytest.param(b"abc\r\n", (("SIZE", "5"),), [], id="as large as declared"),
        pytest.param(b"abc\r\n", (("SIZE", "0"),), [], id="size not known"),
        pytest.param(b"abc\r\n", (("SIZE", None),), [], id="size without a value"),
        # A server may be told to accept a MAIL that it would refuse.
        pytest.param(b"abc\r\n", (("SIZE", "abc"),), [], id="size that is no number"),
        pytest.param(b"abc\r\n", (("SIZE", "-1"),), [], id="size below nothing"),
    ],
)
def test_lints_of_content(data: bytes, parameters: Parameters, lints: list[Lint]) -> None:
    """Content has exactly the lints it deserves, given what MAIL has declared."""
    assert list(content_lints(data, parameters)) == lints
