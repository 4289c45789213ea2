"""What run.sh cannot say in bash: JSON, and an event-stream parser.

The parser is written from the WHATWG grammar and shares no code with
pushwheel, so a mistake in the server's encoder cannot hide in it.

    check.py json EXPRESSION   < body     exit 0 if EXPRESSION holds of `d`
    check.py print EXPRESSION  < body     print its value
    check.py events            < stream   one line per event: name, id, data
    check.py data              < stream   one line per event: data
    check.py last-id           < stream   the cursor a browser would send

Names and data are printed as JSON strings where they hold control characters.
An unfinished last block is discarded, as a browser discards it.
"""

import json
import re
import sys


def parse(stream):
    """The events of a stream, as (name, id, data), and the last cursor."""
    text = stream.decode("utf-8")
    if text.startswith("\ufeff"):
        text = text[1:]
    lines = re.split("\r\n|\n|\r", text)
    lines.pop()  # what follows the last line end is not a line yet
    events, cursor, committed = [], "", ""
    name, data = "", []
    for line in lines:
        if line == "":
            committed = cursor
            if data:
                events.append((name or "message", committed, "\n".join(data)))
            name, data = "", []
            continue
        field, colon, value = line.partition(":")
        if colon and not field:
            continue  # a comment
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id" and "\0" not in value:
            cursor = value
    return events, committed


def plain(text):
    return text if text.isprintable() else json.dumps(text)


def main():
    what, *rest = sys.argv[1:]
    body = sys.stdin.buffer.read()
    if what in ("json", "print"):
        try:
            value = eval(rest[0], {"d": json.loads(body)})
        except Exception as wrong:  # whatever is wrong with it, show the body
            sys.exit(f"{rest[0]}: {wrong!r}, of {body[:2000]!r}")
        if what == "print":
            print(value)
        elif not value:
            sys.exit(f"{rest[0]} does not hold of {body[:2000]!r}")
        return
    events, cursor = parse(body)
    if what == "last-id":
        print(cursor)
    elif what == "data":
        for _, _, data in events:
            print(plain(data))
    elif what == "events":
        for name, id_, data in events:
            print(plain(name), id_, plain(data), sep="\t")
    else:
        sys.exit(f"check.py: no such thing to do: {what}")


main()
