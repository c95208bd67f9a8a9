"""HTML in descriptions and documents, as the text that a browser would show."""

from __future__ import annotations

import html
import re

from dynaq.ingest.limits import HTML_CHARS

# Elements that occur in postings and résumés. `List<String>` and `a < b` are not HTML.
_TAG = re.compile(
    r"</?(?:p|br|hr|div|span|ul|ol|li|dl|dt|dd|b|i|u|em|strong|small|font|a|h[1-6]|table|thead|tbody|tr|td|th|section|"
    r"article|header|footer|main|nav|html|head|body|script|style|img|pre|code|blockquote|iframe|svg|meta|link|sup|sub)"
    r"(?:\s[^<>]*)?/?>|<!--|<!doctype\s",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&(?:[a-z]{2,8}\d?|#\d{2,6}|#x[0-9a-f]{2,5});", re.IGNORECASE)
_DROPPED = re.compile(r"<(script|style|svg|iframe)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)", re.IGNORECASE | re.DOTALL)
_BLANKS = re.compile(r"[^\S\n]+")


def has_html(text: str) -> bool:
    """Whether a text contains HTML tags or character references."""
    return ("<" in text and _TAG.search(text) is not None) or ("&" in text and _ENTITY.search(text) is not None)


def html_to_text(text: str) -> str:
    """The visible text: a line per block, `* ` before list items, scripts and styles left out."""
    # Imported here: few inputs contain HTML.
    from inscriptis import get_text

    text = text[:HTML_CHARS]
    for _ in range(2):  # some exports escape HTML a second time: &lt;p&gt;
        if _TAG.search(text):
            break
        if not _ENTITY.search(text):
            return text
        text = html.unescape(text)
    if _TAG.search(text):
        text = get_text(_DROPPED.sub(" ", text))
    lines = [_BLANKS.sub(" ", line).strip() for line in text.replace("\xa0", " ").split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
