"""A model file is read as written, or refused in one line that names actor and step."""

import pytest

from headway.checker.model import Act, load, parse
from headway.errors import UsageError


def table(*steps, count=1, pools=None, **more):
    return {
        "pools": pools or {"a": 2, "b": 3},
        "actors": {"x": {"count": count, "steps": list(steps)}},
        **more,
    }


def test_one_string_is_one_request():
    (actor,) = parse(table("+a", "+a 1 +b 2", "-a 2 -b", "+a | +b 2", count=3)).actors
    assert actor.count == 3
    assert actor.steps == (
        (Act(True, (1, 0)),),
        (Act(True, (1, 2)),),
        (Act(False, (2, 1)),),
        (Act(True, (1, 0)), Act(True, (0, 2))),
    )


def test_what_is_not_said():
    model = parse({"pools": {"a": 1}, "actors": {"x": {"steps": ["+a", "-a"]}}})
    assert (model.wake, model.actors[0].count) == ("fifo", 1)
    assert parse(table("+a", "-a", wake="any-fit")).wake == "any-fit"


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (table("+a", "-a 2"), "actor x, step 2 ('-a 2') gives back 2 of a, and holds 1 there"),
        (table("+a 2 | +b", "-a"), "actor x, step 2 ('-a') gives back 1 of a, and holds 0 there"),
        (table("+a", "+b -a"), "actor x, step 2 ('+b -a') takes and gives back at once"),
        (table("+c"), "actor x, step 1 ('+c'): unknown pool 'c'; there is a, b"),
        (table("+a 0"), "actor x, step 1 ('+a 0'): the number of a is 0"),
        (table("+a two"), "actor x, step 1 ('+a two'): cannot read 'two'"),
        (table("+a 1.5"), "actor x, step 1 ('+a 1.5'): cannot read '1.5'"),
        (table("a"), "actor x, step 1 ('a'): cannot read 'a'"),
        (table("+a |"), "actor x, step 1 ('+a |') has an empty request"),
        (table(""), "actor x, step 1 ('') has an empty request"),
        (table(7), "actor x, step 1 is 7; write a string"),
        (table(), "actor x: steps is []"),
        (table("+a", count=-1), "actor x: count is -1"),
        (table("+a", count=True), "actor x: count is True"),
        (table("+a", count="2"), "actor x: count is '2'"),
        (table("+a", pools={"a": 0}), "pool a is 0"),
        (table("+a", pools={"a": 1.0}), "pool a is 1.0"),
        (table("+a", pools={"a b": 1}), "pool 'a b'"),
        (table("+a", wake="lifo"), "wake is 'lifo'"),
        (table("+a", pool={}), "the file has an unknown key 'pool'"),
        ({"pools": {"a": 1}}, "no actors"),
        ({"actors": {"x": {"steps": ["+a"]}}}, "no pools"),
        ({"pools": {"a": 1}, "actors": {"x": ["+a"]}}, "actor x is ['+a']"),
        ({"pools": {"a": 1}, "actors": {"x": {"step": ["+a"]}}}, "unknown key 'step'"),
    ],
)
def test_what_is_refused(found, says):
    with pytest.raises(UsageError) as refused:
        parse(found)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_are_no_model(tmp_path):
    for name, content, says in [
        ("none.toml", None, "does not exist"),
        ("bad.toml", b"pools = [", "is not TOML"),
        ("bytes.toml", b"\xff\xfe", "is not TOML"),
        ("empty.toml", b"", "no pools"),
    ]:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UsageError, match=says):
            load(str(path))
    with pytest.raises(UsageError, match="is a directory"):
        load(str(tmp_path))
