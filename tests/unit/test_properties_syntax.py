import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.settings.properties import PropertiesError, Property, parse_properties, read_properties

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def escaped(text: str, *, ascii_only: bool) -> str:
    """The text as Java's own writer would have it: specials behind a backslash, the rest of Unicode as \\uXXXX."""
    out = []
    for char in text:
        if char in "\\=: #!\t\f":
            out.append({"\t": "\\t", "\f": "\\f"}.get(char, "\\" + char))
        elif char in "\n\r":
            out.append({"\n": "\\n", "\r": "\\r"}[char])
        elif ascii_only and not " " <= char <= "~":
            units = char.encode("utf-16-be")
            out += [f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)]
        else:
            out.append(char)
    return "".join(out)


def parsed(text: str, **environ: str) -> list[tuple[str, str]]:
    return [(entry.key, entry.value) for entry in parse_properties(text, environ)]


@given(
    st.lists(st.tuples(TEXT.filter(bool), TEXT.filter(lambda text: "$$" not in text))),
    st.sampled_from(["=", ":", " ", " = ", "\t:\f"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_what_was_written_is_read_back(entries, separator, newline, ascii_only):
    lines = [
        escaped(key, ascii_only=ascii_only) + separator + escaped(value, ascii_only=ascii_only)
        for key, value in entries
    ]
    read = parse_properties(newline.join(lines), {})
    assert read == [Property(key, value, number) for number, (key, value) in enumerate(entries, 1)]


@given(st.text(max_size=200))
def test_any_text_is_either_parsed_or_refused_with_its_line(text):
    try:
        entries = parse_properties(text, {})
    except PropertiesError as error:
        assert str(error).startswith("config.properties:")  # noqa: PT017
    else:
        assert [entry.line for entry in entries] == sorted({entry.line for entry in entries})


@pytest.mark.parametrize("line", ["a=b", "a = b", "a:b", "a : b", "a b", "a\tb", "  a=b", "\fa \t=\f b"])
def test_every_separator_is_understood(line):
    assert parsed(line) == [("a", "b")]


def test_only_the_first_separator_counts():
    assert parsed("a=b=c:d e\nx==\ny = : z") == [("a", "b=c:d e"), ("x", "="), ("y", ": z")]


def test_key_alone_has_an_empty_value():
    assert parsed("a\nb=\nc:  ") == [("a", ""), ("b", ""), ("c", "")]


def test_trailing_blanks_belong_to_the_value():
    assert parsed("a = b  ") == [("a", "b  ")]


def test_comments_and_blank_lines_are_skipped_but_counted():
    text = "# c\n\n  ! c = d\na=1\n   \n#x\\\nb=2"
    assert parse_properties(text, {}) == [Property("a", "1", 4), Property("b", "2", 7)]


def test_hash_inside_a_value_is_no_comment():
    assert parsed("a=b # c") == [("a", "b # c")]


def test_continued_lines_are_joined_and_have_their_first_line():
    text = 'models={\\\n  "m": \\\n\t{}}\nb=1'
    assert parse_properties(text, {}) == [Property("models", '{"m": {}}', 1), Property("b", "1", 4)]


def test_continued_comment_lookalike_belongs_to_the_value():
    assert parsed("a=1,\\\n# 2") == [("a", "1,# 2")]


def test_escaped_backslash_at_the_end_does_not_continue():
    assert parsed("a=c:\\\\\nb=1") == [("a", "c:\\"), ("b", "1")]


def test_backslash_at_the_end_of_the_file_is_dropped():
    assert parsed("a=b\\") == [("a", "b")]


def test_escapes():
    assert parsed(r"a\ b\=c=http\://x\t\u00e9\ud83d\ude00\q") == [("a b=c", "http://x\té😀q")]


@pytest.mark.parametrize("value", ["\\u12", "\\uzzzz", "\\u"])
def test_broken_unicode_escape_names_the_line(value):
    with pytest.raises(PropertiesError, match=r"config\.properties:2: \\u must be followed by four"):
        parse_properties(f"ok=1\na={value}", {})


def test_variables_are_replaced_in_values():
    assert parsed("a=$$HOME$$/x/$$N$$", HOME="/h", N="$$HOME$$") == [("a", "/h/x/$$HOME$$")]
    assert parsed("a=$5 $$ $$ x") == [("a", "$5 $$ $$ x")]


def test_missing_variable_names_line_and_key():
    with pytest.raises(PropertiesError, match=r"config\.properties:2: store: the environment variable NOPE"):
        parse_properties("\nstore=$$NOPE$$", {})


def test_unreadable_file_is_named(tmp_path):
    with pytest.raises(PropertiesError, match="cannot read the settings file"):
        read_properties(tmp_path / "none.properties", {})


def test_file_in_javas_own_encoding_is_read(tmp_path):
    path = tmp_path / "c.properties"
    path.write_bytes("a=é".encode("latin-1"))
    assert read_properties(path, {}) == [Property("a", "é", 1)]
