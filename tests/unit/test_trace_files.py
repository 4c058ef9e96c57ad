"""Trace files: what is written can be read, and invalid files are refused."""

import gzip
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from romul_sim.churn import trace_files
from romul_sim.churn.trace import DAY_S, GENERATORS, Change, Pool, Trace, TraceError, generate
from romul_sim.churn.trace_files import line_of, read_trace, write_trace
from tests.conftest import romul

ARRIVES = '{"at": 0, "machine": "a", "event": "arrives"}'
SECONDS = st.floats(0, 1e6)
NUMBERS = st.floats(0, 1e6)


def counts(data, gap="300"):
    return f'{{"metadata": {{"gap_seconds": {gap}}}, "data": {data}}}'


@pytest.fixture
def read(tmp_path):
    """Read text or bytes as a trace."""
    file = tmp_path / "trace.json"

    def read(content):
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_trace(file)

    return read


# -- what is written ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", GENERATORS)
def test_what_was_generated_is_read_as_it_was(tmp_path, name, seed):
    # A span whose end is no whole millisecond, shortly after many a machine's end.
    pool = Pool(12, 1800.0, 0.33333333 * DAY_S, 3)
    made = generate(name, pool, default_rng(seed))
    write_trace(tmp_path / "t.jsonl", made)
    assert read_trace(tmp_path / "t.jsonl") == made
    assert made.span_s == pool.span_s


@st.composite
def stays(draw, machine):
    """The events of a machine: it arrives, and leaves or stays to the end."""
    found = []
    times = iter(sorted(draw(st.lists(SECONDS, max_size=12))))
    there = False
    for at_s in times:
        what = draw(st.sampled_from(["leaves", "notice", "freezes", "slows"]))
        change = Change(at_s, machine, what if there else "arrives")
        if change.what == "arrives":
            optional = {"speed": st.none() | NUMBERS, "price": st.none() | NUMBERS}
            given = {key: draw(values) for key, values in optional.items()}
            change = replace(change, zone=draw(st.text(max_size=3)), **given)
        elif what in ("notice", "freezes"):
            change = replace(change, seconds=draw(SECONDS))
        elif what == "slows":
            change = replace(change, speed=draw(NUMBERS))
        there = change.what != "leaves"
        found.append(change)
    return found


@st.composite
def traces(draw):
    names = draw(st.lists(st.text(), max_size=4, unique=True))
    changes = [change for name in names for change in draw(stays(name))]
    changes.sort(key=lambda change: change.at_s)
    last_s = changes[-1].at_s if changes else 0.0
    return Trace(tuple(changes), last_s + draw(SECONDS))


@given(trace=traces())
def test_whatever_a_trace_holds_it_is_read_as_it_was(tmp_path_factory, trace):
    file = tmp_path_factory.mktemp("traces") / "t.jsonl"
    write_trace(file, trace)
    assert read_trace(file) == trace
    file.write_bytes(gzip.compress(file.read_bytes()))
    assert read_trace(file) == trace


def test_nothing_and_naught_are_kept_apart():
    free = Change(0.0, "a", "arrives", speed=0.0, price=0.0)
    assert json.loads(line_of(free)) == {
        "at": 0.0,
        "machine": "a",
        "event": "arrives",
        "speed": 0.0,
        "price": 0.0,
    }
    assert json.loads(line_of(Change(3.0, "a", "leaves"))) == {
        "at": 3.0,
        "machine": "a",
        "event": "leaves",
    }


def test_a_saved_trace_is_the_same_simulation(tmp_path):
    file = tmp_path / "trace.jsonl"
    first = romul("sim", "--json", "--churn=replaced", "--days=0.2", f"--save-trace={file}")
    again = romul("sim", "--json", f"--trace={file}")
    # It lasts to the end of the span, after the last machine's event: as many steps fit.
    assert json.loads(first.stdout)["golden_sha256"] == json.loads(again.stdout)["golden_sha256"]


# -- what is read ---------------------------------------------------------------------------------


def test_a_line_with_a_time_alone_says_how_long_a_trace_goes_on(read):
    trace = read(f'{{"at": 0, "event": "record"}}\n\n{ARRIVES}\n{{"at": 9}}\n')
    assert (len(trace.changes), trace.span_s) == (1, 9.0)


def test_counts_may_be_whole_floats_and_have_more_beside_them(read):
    text = '{"metadata": {"gap_seconds": 60, "zone": "a"}, "data": [2.0, 1], "source": "b"}'
    assert (len(read(text).changes), read(text).span_s) == (3, 120.0)


def test_the_order_of_the_file_counts_at_one_time_and_at_no_other(read):
    lines = [
        '{"at": 7, "machine": "a", "event": "leaves"}',
        '{"at": 7, "machine": "a", "event": "arrives"}',
        ARRIVES,
    ]
    whole = read("\n".join(lines))
    assert [(c.at_s, c.what) for c in whole.changes] == [
        (0.0, "arrives"),
        (7.0, "leaves"),
        (7.0, "arrives"),
    ]
    with pytest.raises(TraceError, match=r"trace\.json:1: arrives at 7 s: machine 'a' is there"):
        read("\n".join([lines[1], lines[0], ARRIVES]))


@pytest.mark.parametrize("mark", ["", "\N{BYTE ORDER MARK}"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_files_of_other_systems_are_read(read, mark, end, pack):
    # U+2028 may stand in a JSON text as it is; it ends no line.
    machine = "a\N{LINE SEPARATOR}b"
    lines = [
        json.dumps({"at": 0, "machine": machine, "event": "arrives"}, ensure_ascii=False),
        '{"at": 5}',
    ]
    trace = read(pack((mark + end.join(lines)).encode()))
    assert trace == Trace((Change(0.0, machine, "arrives"),), 5.0)
    assert read(pack((mark + counts("[1]")).encode())).changes == (Change(0.0, "m0", "arrives"),)


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "counts"),
        ("[]", "counts"),
        ('{"data": [1]}', "counts"),
        (counts("[1]", "0"), "gap_seconds"),
        (counts("[1]", "NaN"), "gap_seconds: nan is not from 0"),
        (counts("[1]", "Infinity"), "gap_seconds: inf is not from 0"),
        (counts("[1]", '"300"'), "gap_seconds: '300' is not a number"),
        (counts("[1]", "true"), "gap_seconds: True is not a number"),
        (counts("[1, 1]", "3e9"), "gap_seconds: 2 counts last 6e"),
        (counts("[]"), r"data: \[\] is not a list of counts"),
        (counts('"444"'), "data: '444' is not a list of counts"),
        (counts("[1, -1]"), r"data\[1\]: -1 is not a whole number"),
        (counts("[1.5]"), r"data\[0\]: 1\.5 is not a whole number"),
        (counts("[NaN]"), r"data\[0\]: nan is not a whole number"),
        (counts("[true]"), r"data\[0\]: True is not a whole number"),
        (counts('["4"]'), r"data\[0\]: '4' is not a whole number"),
        (counts("[1000000000]"), "1000000000 machines at a time: at most 20000"),
    ],
)
def test_counts_that_are_none_are_refused(read, text, message):
    with pytest.raises(TraceError, match=rf"trace\.json: .*{message}"):
        read(text)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"at": "x"}', "at: 'x' is not a number"),
        ('{"at": true}', "at: True is not a number"),
        ('{"at": NaN}', "at: nan is not from 0"),
        ('{"at": 1e400}', "at: inf is not from 0"),
        ('{"at": 1e10}', "at: 10000000000.0 is not from 0"),
        ('{"machine": "a", "event": "leaves"}', "at: not given"),
        ('{"at": 1, "machine": "a"', "delimiter"),
        ("[1]", r"\[1\] is not an object"),
        ('{"at": 1, "machin": "a", "event": "leaves"}', "machine: not given"),
        ('{"at": 1, "machine": 5, "event": "leaves"}', "machine: 5 is not text"),
        ('{"at": 1, "machine": "a"}', "event: not given"),
        ('{"at": 1, "machine": "a", "event": "explodes"}', "event: 'explodes' is not one of"),
        ('{"at": 1, "machine": "a", "event": ["leaves"]}', r"event: \['leaves'\] is not one of"),
        ('{"at": -1, "machine": "b", "event": "arrives"}', "at: -1 is not from 0"),
        (
            '{"at": 1, "machine": "b", "event": "arrives", "zones": "z"}',
            "arrives: 'zones': no such key: did you mean 'zone'",
        ),
        ('{"at": 1, "machine": "b", "event": "arrives", "zone": 1}', "zone: 1 is not text"),
        ('{"at": 1, "machine": "b", "event": "arrives", "speed": NaN}', "speed: nan is not from"),
        ('{"at": 1, "machine": "b", "event": "arrives", "price": "1"}', "price: '1' is not a num"),
        ('{"at": 1, "machine": "b", "event": "arrives", "price": null}', "price: None is not a n"),
        ('{"at": 1, "machine": "a", "event": "notice"}', "seconds: not given"),
        ('{"at": 1, "machine": "a", "event": "freezes", "seconds": -1}', "seconds: -1 is not from"),
        ('{"at": 1, "machine": "a", "event": "slows"}', "speed: not given"),
        (
            '{"at": 1, "machine": "a", "event": "leaves", "zone": "z"}',
            "leaves: 'zone': no such key: none is taken",
        ),
        ('{"at": 1, "machine": "b", "event": "leaves"}', "machine 'b' is not there then"),
        ('{"at": 1, "machine": "b", "event": "notice", "seconds": 1}', "'b' is not there then"),
        (ARRIVES, "machine 'a' is there already then"),
    ],
)
def test_a_line_of_a_trace_that_is_none_is_refused(read, row, message):
    assert len(read(ARRIVES).changes) == 1
    with pytest.raises(TraceError, match=rf"trace\.json:3: .*{message}"):
        read(f"{ARRIVES}\n\n{row}\n")


def test_nothing_happens_to_a_machine_that_has_left(read):
    left = f'{ARRIVES}\n{{"at": 4, "machine": "a", "event": "leaves"}}\n'
    assert len(read(left).changes) == 2
    for event in ('"slows", "speed": 1', '"leaves"'):
        with pytest.raises(TraceError, match=r"trace\.json:3: .* at 5 s: machine 'a' is not there"):
            read(f'{left}{{"at": 5, "machine": "a", "event": {event}}}\n')


def test_a_trace_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(tmp_path / "none.json")


@pytest.mark.parametrize(
    "content", [gzip.compress(ARRIVES.encode() * 99, mtime=0)[:-9], b"\x1f\x8bno", b"\xff"]
)
def test_a_damaged_file_is_refused(read, content):
    with pytest.raises(TraceError, match=r"trace\.json: cannot be read: "):
        read(content)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_has_a_greatest_length(read, pack, monkeypatch):
    monkeypatch.setattr(trace_files, "LONGEST_LINE", 100)
    monkeypatch.setattr(trace_files, "LONGEST_FILE", 1000)
    last = '{"at": 5}\n'
    assert read(pack((last * 100).encode())).span_s == 5.0
    for text, message in (
        (last * 101, "more than 1000 characters"),
        (f"{last}{' ' * 101}", "json:2: a line of more than 100 characters"),
        (counts("[\n1,\n1\n]").replace("data", f"data{' ' * 30}\n{' ' * 30}"), "counts of more"),
    ):
        with pytest.raises(TraceError, match=message):
            read(pack(text.encode()))


def test_a_trace_has_a_greatest_number_of_events_and_machines(read, monkeypatch):
    lines = [ARRIVES.replace('"a"', f'"m{number}"') for number in range(4)]
    assert len(read("\n".join(lines)).changes) == 4
    monkeypatch.setattr(trace_files, "MOST_MACHINES", 3)
    with pytest.raises(TraceError, match=r"json:4: more than 3 machines at a time"):
        read("\n".join(lines))
    monkeypatch.setattr(trace_files, "MOST_CHANGES", 2)
    with pytest.raises(TraceError, match=r"json:3: more than 2 events"):
        read("\n".join(lines))
