"""Python's own codecs against ours; run by test_oracle.

  oracle.py make SEED N > FILE     N random calls by xmlrpc.client and json, with what they mean
  oracle.py check FILE             replies by our writers, with what they mean

A line of either file: format, TAB, meaning, TAB, document in hexadecimal. The meaning is a JSON text
in which every scalar is a string with its kind in front: "s…" string, "i5" int, "j5" tagged int,
"b1", "f<hex float>", "t<epoch>", "n" nil.
"""
import calendar
import json
import random
import re
import sys
import time
import xmlrpc.client

ALPHABET = "abcxyz019 <>&\"'\\/\t\n\x7f\x80äߟ߿ࠀ€\ue000\ufffd😀\U0010fffd]"


def text(r):
    return "".join(r.choice(ALPHABET) for _ in range(r.choice([0, 1, 5, 17, 40, 200])))


def tree(r, depth):
    """A random value as (meaning, value for xmlrpc.client, value for json)."""
    kind = r.randrange(9 if depth else 6)
    if kind == 0:
        n = r.choice([0, 1, -1, 2**31 - 1, -2**31, r.randrange(-10**6, 10**6)])
        return "i%d" % n, n, n
    if kind == 1:
        b = r.random() < 0.5
        return "b%d" % b, b, b
    if kind == 2:
        f = r.choice([0.5, -1.25e300, 1e-5, 60.1, r.random() * 10 ** r.randrange(-20, 20)])
        return "f" + f.hex(), f, f
    if kind == 3:
        epoch = r.randrange(0, 4 * 10**9)
        iso = time.strftime("%Y%m%dT%H:%M:%S", time.gmtime(epoch))
        return ("t%d" % epoch, "s" + iso), xmlrpc.client.DateTime(iso), iso
    if kind < 6:
        s = text(r)
        return "s" + s, s, s
    children = [tree(r, depth - 1) for _ in range(r.randrange(5))]
    if kind == 6 or depth % 2:
        return [c[0] for c in children], [c[1] for c in children], [c[2] for c in children]
    names = ["%s%d" % (text(r), i) for i in range(len(children))]
    return tuple_free(names, children)


def tuple_free(names, children):
    return tuple({n: c[k] for n, c in zip(names, children)} for k in range(3))


def meaning_for(meaning, xml):
    """Chooses between the meanings of a date: a date in XML-RPC, a string in JSON."""
    if isinstance(meaning, tuple):
        return meaning[0] if xml else meaning[1]
    if isinstance(meaning, list):
        return [meaning_for(m, xml) for m in meaning]
    if isinstance(meaning, dict):
        return {k: meaning_for(m, xml) for k, m in meaning.items()}
    return meaning


def emit(form, meaning, document):
    canonical = json.dumps(meaning, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    print(form, canonical, document.encode("utf-8").hex(), sep="\t")


def make(seed, n):
    r = random.Random(seed)
    for _ in range(n):
        params = [tree(r, 4) for _ in range(r.randrange(4))]
        meanings = [p[0] for p in params]
        emit("xml", meaning_for(meanings, True), xmlrpc.client.dumps(tuple(p[1] for p in params), "VM.x", allow_none=True))
        request = {"jsonrpc": "2.0", "method": "VM.x", "params": [p[2] for p in params], "id": 1}
        emit("json", meaning_for(meanings, False), json.dumps(request, ensure_ascii=r.random() < 0.5, indent=r.choice([None, 1])))


def close(a, b):
    """Equal as %.16g goes."""
    return a == b or abs(a - b) <= abs(a) * 1e-15


def same(meaning, value, xml):
    if isinstance(meaning, list):
        return isinstance(value, list) and len(value) == len(meaning) and all(same(m, v, xml) for m, v in zip(meaning, value))
    if isinstance(meaning, dict):
        return isinstance(value, dict) and value.keys() == meaning.keys() and all(same(m, value[k], xml) for k, m in meaning.items())
    kind, rest = meaning[0], meaning[1:]
    if kind == "s":
        return value == rest
    if kind == "i":
        return value == (rest if xml else int(rest)) and not isinstance(value, bool)
    if kind == "j":
        return type(value) is int and value == int(rest)
    if kind == "b":
        return value is (rest == "1")
    if kind == "f":
        return isinstance(value, (int, float)) and close(float.fromhex(rest), value)
    if kind == "t":
        stamp = value.value if xml else value
        if not re.fullmatch(r"\d{8}T\d\d:\d\d:\d\dZ", stamp):
            return False
        return calendar.timegm(time.strptime(stamp, "%Y%m%dT%H:%M:%SZ")) == int(rest)
    return value is None


def check(path):
    n = 0
    for line in open(path, encoding="ascii"):
        form, meaning, document = line.rstrip("\n").split("\t")
        meaning, document = json.loads(meaning), bytes.fromhex(document).decode("utf-8")
        if form == "xml":
            answer = xmlrpc.client.loads(document)[0][0]
            assert re.search(r">\s+<", re.sub(r"<(value|name)>[^<]*</\1>", "", document)) is None, "not compact: " + document
            ok = answer.keys() == {"Status", "Value"} and answer["Status"] == "Success" and same(meaning, answer["Value"], True)
        else:
            answer = json.loads(document)
            ok = answer.keys() == {"jsonrpc", "result", "id"} and answer["id"] == 1 and same(meaning, answer["result"], False)
        if not ok:
            sys.exit("differs: %s\n%s" % (json.dumps(meaning), document))
        n += 1
    print(n)


if sys.argv[1] == "make":
    make(int(sys.argv[2]), int(sys.argv[3]))
else:
    check(sys.argv[2])
