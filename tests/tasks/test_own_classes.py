"""What a script stores comes back to it as instances of its own classes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.support.database import psycopg_url
from tests.support.programs import python, written

DEFINITIONS = """
import dataclasses, enum, typing
from collections import Counter
from pydantic import BaseModel, PrivateAttr
from pgresults import ResultStore, task
from pgresults.cache_policies import INPUTS

T = typing.TypeVar("T")

class Color(enum.Enum):
    RED = 1
    GREEN = 2

class Bits(enum.Flag):
    A = 1
    B = 2

class Level(enum.IntEnum):
    LOW = 1

class Row(BaseModel):
    x: int
    _seen: int = PrivateAttr(3)

class Box(BaseModel, typing.Generic[T]):
    items: list[T] = []

@dataclasses.dataclass
class Point:
    x: int
    color: Color = Color.RED

@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: int

class Special(Point):
    class Part:
        def __eq__(self, other):
            return type(self) is type(other)

class Pair(typing.NamedTuple):
    left: int
    right: Color

class Meta(type):
    pass

class Counted(metaclass=Meta):
    count = 0

class MyError(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code

class Gone(OSError):
    def __init__(self, path):
        super().__init__(2, "gone", path)
"""

TWICE = (
    DEFINITIONS
    + """
def failure():
    try:
        raise Gone("/x")
    except OSError as cause:
        try:
            raise MyError(code=3) from cause
        except MyError as error:
            error.add_note("noted")
            return error

VALUES = {
    "member": Color.RED, "flags": Bits.A | Bits.B, "level": Level.LOW, "model": Row(x=1),
    "generic": Box[int](items=[1]), "of its own": Box[Row](items=[Row(x=2)]), "dataclass": Point(1),
    "frozen": Frozen(2), "subclass": Special(3, Color.GREEN), "nested class": Special.Part(),
    "pair": Pair(1, Color.GREEN), "a class": Special.Part, "a generic class": Box[Row], "a counting class": Counted,
    "within": [{"a": (Point(1), {Frozen(1)}, Color.GREEN)}], "as a key": {Frozen(1): Color.RED},
    "counter": Counter({Color.RED: 2}),
}

@task(cache_policy=INPUTS)
def make(name):
    print("computed")
    return VALUES[name]

@task(cache_policy=INPUTS)
def fail():
    print("computed")
    return failure()

Counted.count = 5
for name, value in VALUES.items():
    made = make(name)
    assert made == value and type(made) is type(value), (name, made)
    if isinstance(value, (type, Color)):
        assert made is value, name
error = fail()
try:
    raise error
except MyError as caught:
    assert (caught.code, str(caught), caught.args, caught.__notes__) == (3, "code 3", ("code 3",), ["noted"])
    assert type(caught.__cause__) is Gone and caught.__cause__.filename == "/x" and caught.__suppress_context__
assert make("member") is Color.RED and Counted.count == 5
assert type(make("within")[0]["a"][0]).__module__ == "__main__"
"""
)


@pytest.fixture
def run(fresh_url: URL, tmp_path: Path) -> Callable[..., list[str]]:
    """Runs programs of this test's directory on this test's database."""

    def run(*arguments: str, typed: str | None = None) -> list[str]:
        return python(*arguments, directory=tmp_path, typed=typed, PGRESULTS_DATABASE_URL=psycopg_url(fresh_url))

    return run


def test_a_script_that_runs_again_gets_its_own_classes(run: Callable[..., list[str]], tmp_path: Path) -> None:
    written(tmp_path, {"script.py": TWICE})
    assert len(run("script.py")) == 18
    assert run("script.py") == []


def test_a_class_that_was_changed_since_is_the_present_one(run: Callable[..., list[str]], tmp_path: Path) -> None:
    script = """
    from dataclasses import dataclass
    from pgresults import ResultStore
    store = ResultStore()

    @dataclass
    class Row:
        x: int
        def doubled(self):
            return 2 * self.x

    if store.exists("row"):
        row = store.read("row").result
        print(type(row) is Row, row.doubled())
    else:
        store.write(Row(3), key="row")
    """
    written(tmp_path, {"script.py": script})
    assert run("script.py") == []
    written(tmp_path, {"script.py": script.replace("2 * self.x", "20 * self.x")})
    assert run("script.py") == ["True 60"]


ELSEWHERE = """
from dataclasses import dataclass
import enum
from pgresults import ResultStore

@dataclass
class Point:
    other: str

    def area(self):
        return "another's"

class Color(enum.Enum):
    RED = "red"

for _ in range(2):
    point, color = ResultStore().read("both").result
    assert type(point) is not Point and not isinstance(color, Color)
    print(point, point.area(), color, color.value)
    assert type(ResultStore().read("both").result[0]) is type(point)
print([str(member) for member in Color], Point("x").area())
"""


@pytest.mark.slow
def test_another_program_gets_a_copy_even_where_it_has_such_a_class(
    run: Callable[..., list[str]], tmp_path: Path
) -> None:
    sources = {
        "script.py": """
        from dataclasses import dataclass
        import enum
        from pgresults import ResultStore

        class Color(enum.Enum):
            RED = 1

        @dataclass
        class Point:
            x: int
            def area(self):
                return self.x ** 2

        ResultStore().write((Point(3), Color.RED), key="both")
        """,
        "elsewhere.py": ELSEWHERE,
    }
    written(tmp_path, sources)
    run("script.py")
    expected = ["Point(x=3) 9 Color.RED 1"] * 2 + ["['Color.RED'] another's"]
    assert run("elsewhere.py") == expected
    assert run("-", typed=ELSEWHERE) == expected


def test_payloads_are_read_without_this_package(run: Callable[..., list[str]], tmp_path: Path) -> None:
    written(
        tmp_path,
        {
            "script.py": TWICE
            + "\nfrom pathlib import Path\nfrom pgresults.serializers import PickleSerializer\n"
            + "Path('payload').write_bytes(PickleSerializer().dumps([VALUES, failure()]))\n",
            "plain.py": """
            import pickle, sys
            values, error = pickle.load(open("payload", "rb"))
            print(values["model"], values["of its own"], values["flags"])
            print(repr(error), repr(error.__cause__), error.code)
            assert not any(name.startswith("pgresults") for name in sys.modules)
            """,
        },
    )
    run("script.py")
    assert run("plain.py") == [
        "x=1 items=[Row(x=2)] Bits.A|B",
        "MyError('code 3') Gone(2, 'gone') 3",
    ]


def test_a_cell_that_is_run_again_has_its_present_classes(run: Callable[..., list[str]]) -> None:
    cells = """
    from pgresults import ResultStore
    cell = '''
    import enum
    from dataclasses import dataclass

    class Color(enum.Enum):
        RED = 1

    @dataclass
    class Row:
        x: int
        color: Color = Color.RED
        version = VERSION
    '''
    import textwrap
    store = ResultStore()
    VERSION = 1
    exec(textwrap.dedent(cell), globals())
    old = Row(7)
    store.write(old, key="row")
    VERSION = 2
    exec(textwrap.dedent(cell), globals())
    row = store.read("row").result
    print(type(row) is Row, row.color is Color.RED, row == Row(7), row.version, old.version, Row.version)
    store.write(old, key="old")
    print(type(store.read("old").result) is type(old), type(old) is Row)
    """
    assert run("-", typed=cells) == ["True True True 2 1 2", "True False"]


MODULE = """
import enum, sys
from dataclasses import dataclass
from pgresults import ResultStore

class Color(enum.Enum):
    RED = 1

@dataclass
class Row:
    x: int
    color: Color = Color.RED

store = ResultStore()

def write():
    store.write([Row(1), Row], key="row")

def read():
    row, cls = store.read("row").result
    print(cls is Row, type(row) is Row, row.color is Color.RED, row == Row(1))

if __name__ == "__main__":
    globals()[sys.argv[1]]()
"""


@pytest.mark.parametrize(
    ("writing", "reading"),
    [
        ("as a program", "imported"),
        *(
            pytest.param(*ways, marks=pytest.mark.slow)
            for ways in (("imported", "as a program"), ("as a program", "as a program"), ("imported", "imported"))
        ),
    ],
)
def test_a_module_has_one_identity_however_it_is_started(
    run: Callable[..., list[str]], tmp_path: Path, writing: str, reading: str
) -> None:
    written(tmp_path, {"package/__init__.py": "", "package/module.py": MODULE})
    ways = {
        "as a program": ("-m", "package.module"),
        "imported": ("-c", "import sys, package.module as m; getattr(m, sys.argv[1])()"),
    }
    assert run(*ways[writing], "write") == []
    assert run(*ways[reading], "read") == ["True True True True"]


@pytest.mark.slow
def test_a_class_that_is_gone_is_a_copy(run: Callable[..., list[str]], tmp_path: Path) -> None:
    script = """
    from dataclasses import dataclass
    from pgresults import ResultStore

    @dataclass
    class Row:
        x: int

    ResultStore().write(Row(1), key="row")
    """
    written(tmp_path, {"script.py": script})
    run("script.py")
    written(tmp_path, {"script.py": "from pgresults import ResultStore\nprint(ResultStore().read('row').result)"})
    assert run("script.py") == ["Row(x=1)"]


@pytest.mark.slow
def test_json_gives_a_program_its_own_classes_and_no_others(run: Callable[..., list[str]], tmp_path: Path) -> None:
    script = """
    from pydantic import BaseModel
    from pgresults import task
    from pgresults.cache_policies import INPUTS

    class Row(BaseModel):
        x: int

    @task(result_serializer="json", result_storage_key="rows")
    def load():
        print("computed")
        return [Row(x=1)]

    row = load()[0]
    print(type(row) is Row, row)
    """
    written(tmp_path, {"script.py": script, "other.py": script.replace("x=1", "x=2")})
    assert run("script.py") == ["computed", "True x=1"]
    assert run("script.py") == ["True x=1"]
    assert run("other.py") == ["computed", "True x=2"]  # the same name, another's class


@pytest.mark.slow
def test_json_names_a_module_alike_however_it_is_started(run: Callable[..., list[str]], tmp_path: Path) -> None:
    source = MODULE.replace("ResultStore()", "ResultStore(serializer='json')").replace("[Row(1), Row]", "[Row(1), 1]")
    source = source.replace("cls is Row", "cls == 1")
    written(tmp_path, {"package/__init__.py": "", "package/module.py": source})
    assert run("-m", "package.module", "write") == []
    assert run("-m", "package.module", "read") == ["True True True True"]
    assert run("-c", "import package.module as module; module.read(); module.write()") == ["True True True True"]
    assert run("-m", "package.module", "read") == ["True True True True"]
