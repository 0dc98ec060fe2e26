"""What a line of the access log says: patterns with nginx's variables, and some that have a name."""

from __future__ import annotations

from typing import Any

from ssimage._sandstorm import ffi, lib

COMMON = '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent'
COMBINED = COMMON + ' "$http_referer" "$http_user_agent"'
# Members have the names of nginx's variables; time_iso8601 and msec are of the answer's end.
JSON = (
    'escape=json {"time_iso8601":"$time_iso8601","msec":$msec,"remote_addr":"$remote_addr",'
    '"remote_port":$remote_port,"request_method":"$request_method","http_host":"$http_host","request_uri":"$request_uri",'
    '"server_protocol":"$server_protocol","status":$status,"bytes_sent":$bytes_sent,'
    '"body_bytes_sent":$body_bytes_sent,"request_length":$request_length,"request_time":$request_time,'
    '"request_completion":"$request_completion","http_referer":"$http_referer","http_user_agent":"$http_user_agent",'
    '"tcpinfo_rtt":$tcpinfo_rtt,"first_byte_time":$first_byte_time,"retransmissions":$retransmissions,'
    '"variant":"$variant"}'
)
# As Caddy's access log has them, which tools know.
CADDY = (
    'escape=json {"level":"$level","ts":$msec,"logger":"http.log.access","msg":"handled request","request":'
    '{"remote_ip":"$remote_addr","remote_port":"$remote_port","client_ip":"$remote_addr","proto":"$server_protocol",'
    '"method":"$request_method","host":"$http_host","uri":"$request_uri",'
    '"headers":{"User-Agent":["$http_user_agent"],"Referer":["$http_referer"]}},'
    '"bytes_read":0,"user_id":"","duration":$request_time,"size":$body_bytes_sent,"status":$status}'
)
FORMATS = {"common": COMMON, "combined": COMBINED, "json": JSON, "caddy": CADDY}


class PatternError(ValueError):
    """The message says what is wrong with a pattern, and where."""


def compile_format(pattern: str) -> Any:
    """struct access_format *. Raises PatternError."""
    compiled, place = ffi.new("struct access_format *"), ffi.new("uint32_t *")
    try:
        text = pattern.encode("ascii")
    except UnicodeEncodeError:
        raise PatternError("it is not all ASCII") from None
    if any(byte < 0x20 for byte in text):
        raise PatternError("a line is one line: it has a control character")
    error = lib.access_format_read(compiled, text, place)
    if error == ffi.NULL:
        return compiled
    what = ffi.string(error).decode()
    if "no such variable" in what:
        what += f"; there are {', '.join('$' + name for name in variables())}"
    raise PatternError(f"at {pattern[place[0] :][:20]!r}: {what}")


def variables() -> list[str]:
    """Names of all."""
    names: list[str] = []
    while (name := lib.access_variable_name(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    return names
