"""The answers that no route decides: error pages, and OPTIONS'."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from ..manifest.model import Site
from ..sources.charsets import HEAD_BYTES, traits
from ..sources.source import typed
from .fields import cors_fields, path_settings
from .heads import ALLOW, Response, html_page, phrase, response_head, server_field, simple_response
from .multipart import PART_DIGITS
from .templates import OF_CONTENT

ERROR_STATUSES = (400, 404, 405, 406, 408, 412, 414, 416, 417, 421, 431, 501, 503, 505)
# What is of no error: how long to keep a page, and what goes with it.
OF_PAGES = OF_CONTENT | {"cache-control", "expires", "content-location", "link", "refresh", "set-cookie"}
EVERYWHERE = ("**", "/**")  # what a rule for all paths is for
ERROR_FIELDS = {
    405: [ALLOW],
    406: [("Vary", "Accept-Encoding")],
}
ERROR_TEXTS = {
    400: "The request is not well-formed HTTP.",
    404: "There is nothing here under this address.",
    405: "Only GET and HEAD are answered here.",
    406: "There is no variant of this file in an encoding that would be accepted.",
    408: "The request took too long to arrive.",
    412: "The file is not the one that the request is about.",
    414: "The address is too long.",
    416: "The ranges that were asked for are not in this file.",
    417: "The request expects what is not done here.",
    421: "The request is for another server.",
    431: "The request has too many header fields.",
    501: "The request's method is not known.",
    503: "Not available at the moment.",
    505: "This version of HTTP is not spoken here.",
}


@dataclass
class ErrorPage:
    """A site's answer for a status."""

    site: int
    status: int
    get: Response


def error_pages(number: int, site: Site, pages: dict[int, bytes]) -> list[ErrorPage]:
    """The answers that no route decides, and OPTIONS'. pages: bodies that the manifest gives."""
    everywhere = path_settings(site, [rule for rule in site.rules if rule.match in EVERYWHERE], {})
    fields = [item for item in everywhere.fields if item[0].lower() not in OF_PAGES]
    options = simple_response(site, 204, [ALLOW])  # no Content-Length, RFC 9110 section 8.6
    answers = [ErrorPage(number, 204, options)]
    for status in ERROR_STATUSES:
        body = pages.get(status) or html_page(f"{status} {phrase(status)}", ERROR_TEXTS[status])
        head = response_head(status)
        if status == 416:
            head.patch("Content-Range", "bytes */0".rjust(len("bytes */") + PART_DIGITS[-1]))
        media_type = typed("text/html", traits(body), body[:HEAD_BYTES])
        head.add([*server_field(site), ("Content-Type", media_type)])
        head.add([("Content-Length", str(len(body)))])
        own_fields = ERROR_FIELDS.get(status, [])
        head.add(own_fields)
        if status != HTTPStatus.MISDIRECTED_REQUEST:  # whose host is none of the site's
            head.add([item for item in fields if item[0].lower() not in [name.lower() for name, _ in own_fields]])
        head.add(cors_fields(everywhere.cors))
        answers.append(ErrorPage(number, status, head.response(status, body)))
    return answers
