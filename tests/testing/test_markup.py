"""HTML: what it shows and what it links to, whatever it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smtpd.testing.markup import read_html


@pytest.mark.parametrize(
    ("html", "text"),
    [
        pytest.param("a <b>b</b>\n  c", "a b c", id="inline"),
        pytest.param("<p>a</p><p> b <br>c</p>", "a\n\nb\nc", id="blocks and breaks"),
        pytest.param("<table><tr><td>a<td>b</table>", "a\n\nb", id="cells"),
        pytest.param("<span>4</span><span>8</span>", "48", id="digits in boxes"),
        pytest.param("&lt;a&gt; &amp; &uuml; &#8364; &nbsp;&#x41;", "<a> & ü € \xa0A", id="references"),
        pytest.param("&#99999999999; &#xfffffffffff; &#xD800;", "\ufffd \ufffd \ufffd", id="no characters"),
        pytest.param("a<!-- b > c -->d<!doctype x>e<?php f?>g</>h", "adegh", id="comments"),
        pytest.param("a<!-->b<!--->c", "abc", id="short comments"),
        pytest.param("<style>a{}</style>b<script>c<d</script>e<title>f</title>", "b\n\ne", id="not seen"),
        pytest.param("<textarea>a</textarea>b<SCRIPT>c</Script>d", "b\n\nd", id="not seen, in capitals"),
        pytest.param("1 < 2 <3> <", "1 < 2 <3> <", id="no tags"),
        pytest.param("a<!-- b", "a", id="comment not closed"),
        pytest.param("a<p b", "a", id="tag not closed"),
        pytest.param("a<p b='c>d", "a", id="attribute not closed"),
        pytest.param("a<script>b", "a", id="script not closed"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_text_is_what_is_shown(html: str, text: str) -> None:
    """The text of a document is what people see: no tags, references decoded, blocks parted."""
    assert read_html(html)[0] == text


@pytest.mark.parametrize(
    ("html", "links"),
    [
        pytest.param('<a class="x" href="https://a/">b <b>c</b></a>d', [("https://a/", "b c")], id="anchor"),
        pytest.param('<a href="/a"><img alt="Confirm"> <img></a>', [("/a", "Confirm")], id="an image for its text"),
        pytest.param('<button formaction="/a">Pay <b>now</b></button>', [("/a", "Pay now")], id="button"),
        pytest.param("<A HREF='/a'>b</A>", [("/a", "b")], id="capitals, relative"),
        pytest.param("<a href=/a/b?c=d/>e</a>", [("/a/b?c=d/", "e")], id="no quotes"),
        pytest.param('<a href="?a=1&amp;b=2&#38;c&#x26;d">', [("?a=1&b=2&c&d", "")], id="references"),
        pytest.param('<a href="?a=1&section=2&copy=3">', [("?a=1&section=2&copy=3", "")], id="no references"),
        pytest.param('<a href="?a=&#99999999;">', [("?a=&#99999999;", "")], id="reference to nothing"),
        pytest.param('<a href="/a" href="/b">', [("/a", "")], id="the first attribute counts"),
        pytest.param('<a title=">" href = "/a">x', [("/a", "x")], id="bracket in an attribute"),
        pytest.param("<a href='/a'>b<a href='/c'>d", [("/a", "b"), ("/c", "d")], id="not closed"),
        pytest.param("<a href='mailto:a@b'>x</a><a href='app://y'></a>", [("mailto:a@b", "x"), ("app://y", "")], id="schemes"),
        pytest.param("<a name=x>b</a><a href>c</a><a href=''>d</a></a><img src=/e>", [], id="none"),
        pytest.param("<map><area href=/a alt=A></map>", [("/a", "A")], id="area"),
        pytest.param("<form action=/a><input formaction=/b value=B><button formaction=/c>", [("/a", ""), ("/b", "B"), ("/c", "")], id="form"),
        pytest.param("<!--[if mso]><a href=/a>b</a><![endif]--><![if !mso]><a href=/c>d</a><![endif]>", [("/c", "d")], id="Outlook"),
        pytest.param("<a =href=/a><a/href=/b>c", [("/b", "c")], id="odd signs"),
        pytest.param("<abbr href=/a>", [], id="another element"),
    ],
)  # fmt: skip
def test_links_are_what_the_document_leads_to(html: str, links: list[tuple[str, str]]) -> None:
    """The links of a document are the addresses of anchors, areas, forms and buttons, with what is shown for them."""
    assert read_html(html)[1] == links


@given(st.text("<>!-/a='\"&#;x9 \nhrefscipt"))
def test_any_document_can_be_read(html: str) -> None:
    """Whatever a document is, there is a text and a list of links."""
    text, links = read_html(html)
    assert text.strip("\n") == text
    assert all(address for address, _ in links)
