"""Reads messages, one a line, and checks that pyiso8583 reads the same fields from them and writes the same bytes.

A line: PROFILE HEX TYPE FIELD=HEX ... with the bytes of the message and the canonical units of each field in hexadecimal.
The specifications `ascii` and `ascii_raw` are pyiso8583's own. Prints each difference, then how many messages were compared.
"""

import copy
import sys

import iso8583
from iso8583.specs import default, default_ascii

DIGITS = [2, *range(3, 28), 32, 33, *range(49, 52), 53, *range(66, 91), 99, 100]
TRACKS = [35, 36]
BINARIES = [52, 55, 64, 96, 128]


def packed():
    spec = copy.deepcopy(default)
    spec["t"].update(data_enc="b", max_len=2)
    for field in map(str, range(2, 129)):
        spec[field]["len_enc"] = "bcd"
        spec[field]["len_type"] = {0: 0, 2: 1, 3: 2}[spec[field]["len_type"]]
        if int(field) in DIGITS:
            spec[field].update(data_enc="b", len_count="nibbles", left_pad="0")
        if int(field) in TRACKS:
            spec[field].update(data_enc="b", len_count="nibbles", right_pad="F")
    return spec


def ebcdic():
    spec = copy.deepcopy(default)
    for field in ["t", *map(str, range(2, 129))]:
        spec[field]["len_enc"] = "cp500"
        if field == "t" or int(field) not in BINARIES:
            spec[field]["data_enc"] = "cp500"
    return spec


SPECS = {"ascii": default_ascii, "ascii_raw": default, "binary": packed(), "ebcdic": ebcdic()}


def as_theirs(field, units, profile):
    if field in BINARIES:
        return units.hex().upper()
    text = units.decode("ascii")
    return text.replace("=", "D") if profile == "binary" and field in TRACKS else text


def compare(line):
    profile, message, mti, *fields = line.split()
    message, spec = bytes.fromhex(message), SPECS[profile]
    expected = {"t": mti}
    for field, units in (pair.split("=") for pair in fields):
        expected[field] = as_theirs(int(field), bytes.fromhex(units), profile)
    found, _ = iso8583.decode(message, spec)
    found = {field: text for field, text in found.items() if field not in ("h", "p", "1")}
    if profile == "ascii":
        found = {f: t.upper() if f.isdigit() and int(f) in BINARIES else t for f, t in found.items()}
    assert found == expected, f"reads {found}, expected {expected}"
    written, _ = iso8583.encode(dict(expected), spec)
    assert bytes(written) == message, f"writes {bytes(written).hex()}, expected {message.hex()}"


def main():
    count = 0
    for count, line in enumerate(sys.stdin, 1):
        try:
            compare(line)
        except Exception as error:  # whatever it is, it is a difference
            print(f"DIFFERENCE line {count}: {error}")
    print(f"compared {count}")


main()
