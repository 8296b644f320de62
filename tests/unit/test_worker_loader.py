"""The entry point is found where the model says, and a model that names none, or two, is told so."""

import gc
import sys
import textwrap

import pytest

from mlserve.handler import Context
from mlserve.worker.loader import LoadError, find_module, load
from mlserve.worker.warm import warm


@pytest.fixture(autouse=True)
def _clean_imports():
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def model(tmp_path):
    def write(**files):
        for name, text in files.items():
            file = tmp_path / (name.replace("__", "/") + ".py")
            file.parent.mkdir(exist_ok=True)
            file.write_text(textwrap.dedent(text))
        return str(tmp_path)

    return write


def entry_of(handler, model_dir, run=lambda value: value):
    return load(handler, model_dir, Context("m", model_dir), run)


FUNCTION = """
calls = []
def handle(data, context):
    calls.append((data, context.model_name))
    return ["function"]
def other(data, context):
    return ["other"]
"""
CLASS = """
class Mine:
    def initialize(self, context):
        self.ready = context.model_name
    def handle(self, data, context):
        return [self.ready]
"""


@pytest.mark.parametrize("handler", ["mine", "mine.py", "some/dir/mine.py", "mine:handle", "mine.py:handle"])
def test_module_is_found_by_its_base_name(model, handler):
    entry = entry_of(handler, model(mine=FUNCTION))
    assert entry.call([], Context("m", "")) == ["function"]
    assert entry.name == "mine:handle"


def test_function_is_called_once_with_none_to_load_the_model(model):
    entry_of("mine", model(mine=FUNCTION))
    assert sys.modules["mine"].calls == [(None, "m")]


def test_function_after_the_colon_is_used(model):
    assert entry_of("mine:other", model(mine=FUNCTION)).call([], None) == ["other"]


def test_function_wins_over_classes(model):
    assert entry_of("mine", model(mine=CLASS + FUNCTION)).call([], Context("m", "")) == ["function"]


def test_class_is_initialized_and_called(model):
    entry = entry_of("mine", model(mine=CLASS))
    assert entry.call([], None) == ["m"]
    assert entry.name == "mine.Mine"


def test_class_can_be_named_where_there_are_two(model):
    assert (
        entry_of("mine:Mine", model(mine=CLASS + "class Other(Mine): pass\nclass Third(Mine): pass")).name
        == "mine.Mine"
    )


def test_imported_classes_do_not_count(model):
    source = "from library import Mine\nclass Real(Mine):\n    pass\n"
    assert entry_of("mine", model(mine=source, library=CLASS)).name == "mine.Real"


def test_base_class_in_the_same_file_does_not_count(model):
    assert entry_of("mine", model(mine=CLASS + "class Special(Mine):\n    pass\n")).name == "mine.Special"


def test_helper_class_without_handle_does_not_count(model):
    assert entry_of("mine", model(mine=CLASS + "class Net:\n    pass\n")).name == "mine.Mine"


def test_class_without_initialize_will_do_when_it_is_alone(model):
    source = "class Mine:\n    def handle(self, data, context):\n        return ['x']\n"
    assert entry_of("mine", model(mine=source)).call([], None) == ["x"]


@pytest.mark.parametrize(
    ("handler", "source", "said"),
    [
        (
            "mine",
            CLASS + CLASS.replace("Mine", "Yours"),
            "more than one handler class: Mine, Yours; name one as mine:Mine",
        ),
        ("mine", "x = 1", r"mine \(.*mine.py\) has no function handle\(data, context\) and no class"),
        ("mine", "class Net: pass", "it has Net"),
        ("mine:nothing", FUNCTION, "no function or class 'nothing'"),
        ("mine:Net", "class Net: pass", "mine.Net has no method handle"),
        ("absent", FUNCTION, "No handler 'absent': there is no absent.py in the model's directory"),
        ("", FUNCTION, "names no handler"),
    ],
)
def test_what_is_no_handler_is_told_with_names(model, handler, source, said):
    with pytest.raises(LoadError, match=said):
        entry_of(handler, model(mine=source))


def test_file_of_the_model_wins_over_an_imported_module_of_its_name(model):
    import json

    entry = entry_of("json", model(json=FUNCTION))
    assert entry.call([], Context("m", "")) == ["function"]
    assert sys.modules["json"] is json, "everybody else keeps the real one"


def test_file_of_the_model_wins_over_a_built_in_handler(model):
    assert entry_of("base", model(base=FUNCTION)).call([], Context("m", "")) == ["function"]


def test_built_in_handler_is_found_by_its_short_name():
    pytest.importorskip("mlserve.handlers.labels")
    assert find_module("labels", "").__name__ == "mlserve.handlers.labels"


def test_installed_module_is_found_last():
    assert find_module("textwrap", "").__name__ == "textwrap"


def test_modules_beside_the_handler_can_be_imported(model):
    directory = model(mine="import helper\ndef handle(data, context):\n    return [helper.X]\n", helper="X = 5")
    assert entry_of("mine", directory).call([], None) == [5]


def test_handler_in_a_package_of_the_model_is_found_by_its_path(model):
    directory = model(pkg__mine="from . import other\nhandle = other.handle", pkg__other=FUNCTION)
    assert entry_of("pkg/mine.py", directory).call([], Context("m", "")) == ["function"]


def test_missing_dependency_of_the_handler_is_not_taken_for_a_missing_handler(model):
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        entry_of("mine", model(mine="import not_installed_anywhere"))
    assert "mine" not in sys.modules


@pytest.mark.parametrize(
    ("handler", "file", "config", "extra"),
    [
        ("mlserve.handlers.auto", "m.onnx", {}, "onnx"),  # as bare files have it
        ("auto", "m.onnx", {}, "onnx"),
        ("onnx", "m.ubj", {}, "xgboost"),
        ("auto", "m.onnx", {"runtime": "openvino"}, "openvino"),
        ("tabular", "m.skops", {}, "sklearn"),
        ("auto", "m.xyz", {}, "all"),
        ("embedding", "config.json", {}, "transformers"),
    ],
)
def test_a_built_in_handler_without_its_packages_says_what_installs_them(
    tmp_path, monkeypatch, handler, file, config, extra
):
    for module in [one for one in sys.modules if one.startswith("mlserve.handlers.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "numpy", None)
    context = Context("m", str(tmp_path), manifest={"model": {"serializedFile": file}}, model_yaml_config=config)
    with pytest.raises(ImportError, match=rf"^{file} needs the package numpy: pip install 'mlserve\[{extra}\]'"):
        load(handler, str(tmp_path), context, run=None)


@pytest.mark.parametrize(
    "body", ["return [row for row in data]", "return data[0]", "return len(data)", "return data.get('x')"]
)
def test_function_that_does_not_expect_the_load_call_is_loaded_with_a_warning(model, caplog, body):
    entry = entry_of("mine", model(mine=f"def handle(data, context):\n    {body}\n"))
    assert entry.name == "mine:handle"
    assert "called with data=None" in caplog.text


@pytest.mark.parametrize("error", ["OSError('no weights')", "TypeError('bad argument')", "MemoryError()"])
def test_function_that_fails_to_load_its_model_fails_the_load(model, error):
    name = error.partition("(")[0]
    with pytest.raises(getattr(__import__("builtins"), name)):
        entry_of("mine", model(mine=f"def handle(data, context):\n    raise {error}\n"))


@pytest.mark.parametrize("source", [FUNCTION + "handle.accepts_views = True", CLASS + "    accepts_views = True"])
def test_handler_can_ask_for_views(model, source):
    assert entry_of("mine", model(mine=source)).accepts_views


def test_coroutine_of_initialize_is_run(model):
    source = CLASS.replace("def initialize", "async def initialize")
    ran = []
    entry_of("mine", model(mine=source), run=lambda value: (ran.append(True), value.close()))
    assert ran == [True]


def test_later_collections_leave_out_what_was_imported_but_not_what_the_handler_has_made(model):
    folder = model(
        mine="""
        TABLE = [[]]

        class Mine:
            def initialize(self, context):
                self.made = [[]]

            def handle(self, data, context):
                return self
        """
    )
    try:
        found = entry_of("mine", folder).call([], None)
        looked_through = {id(each) for each in gc.get_objects()}
        assert id(found.made) in looked_through, "it may be replaced, and must then be freed"
        assert id(sys.modules[type(found).__module__].TABLE) not in looked_through
    finally:
        gc.unfreeze()


def test_process_that_imports_ahead_leaves_that_out_of_later_collections(tmp_path, monkeypatch):
    (tmp_path / "imported_ahead.py").write_text("TABLE = [[]]\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert warm(["imported_ahead", "not_there_at_all"], {}).failed[0].startswith("not_there_at_all: ")
        assert gc.isenabled()
        table = sys.modules.pop("imported_ahead").TABLE
        assert not any(each is table for each in gc.get_objects())
    finally:
        gc.unfreeze()
