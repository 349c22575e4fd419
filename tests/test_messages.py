"""What the package says to its users (refusals, warnings, verdicts, reasons, advice), in one list:
`tests/data/messages.txt`.

The list is there to be read as a whole: whoever changes a message sees it beside all others. `python
tests/test_messages.py` writes it anew."""
import ast, re
from pathlib import Path

root = Path(__file__).resolve().parents[1]
listed = root/'tests'/'data'/'messages.txt'

def template(node):
    "The text of a string as it stands in the code, with `{...}` for what is put in; None if it is no string"
    if isinstance(node, ast.Constant) and isinstance(node.value, str): return node.value
    if isinstance(node, ast.JoinedStr):
        return ''.join(
            o.value if isinstance(o, ast.Constant) else '{' + ast.unparse(o.value) + '}' for o in node.values
        )

def docstrings(tree):
    "The nodes that are docstrings, and other strings that stand alone"
    return {o.value for o in ast.walk(tree) if isinstance(o, ast.Expr)}

def is_sentence(s):
    "Three words or more, and not a mere list of names"
    words = [w for w in re.sub(r'\{[^{}]*\}', 'x ', s).split() if re.fullmatch('[A-Za-z]{2,}[.,:;]?', w)]
    return 3 <= len(words) and (len(words) < 20 or re.search('[.,:;]', s) is not None)

def messages(path):
    "Each string of a module that has three words or more in a sentence, in the order of the code"
    tree = ast.parse(path.read_text())
    alone = docstrings(tree)
    # parts of an f-string are shown with it
    inside = {v for o in ast.walk(tree) if isinstance(o, ast.JoinedStr) for v in o.values}
    found = [
        (o.lineno, o.col_offset, template(o))
        for o in ast.walk(tree)
        if o not in alone and o not in inside and template(o)
    ]
    return [re.sub(r'\s+', ' ', s).strip() for *_,s in sorted(found) if is_sentence(s)]

def listing():
    # recipes are data
    paths = [p for p in sorted((root/'superconv_fastai').glob('*.py')) if p.stem not in ('_modidx','recipes')]
    return '\n\n'.join('\n'.join([f'# {p.stem}', *dict.fromkeys(ms)]) for p in paths if (ms := messages(p))) + '\n'

def test_messages_are_listed():
    assert listing() == listed.read_text(), 'read the list as a whole, then: python tests/test_messages.py'

def test_what_counts_as_a_message(tmp_path):
    (tmp_path / 'm.py').write_text(
        '"The docstring of a module"\nx = "two words"\ndef f(v):\n    "What f does for you"\n'
        '    raise ValueError(f"v must not be {v!r} here" + " and not there, either")\n'
    )
    assert messages(tmp_path/'m.py') == ['v must not be {v} here', 'and not there, either']

def test_messages_are_plain():
    "No message is a wall of text, shouts, or speaks of how the project is made"
    for line in listing().splitlines():
        assert (
            len(line) < 600
            and '!' not in line.replace('!=', '').replace('!r', '')
            and not re.search(r'\b(TODO|FIXME|issue \d+)\b', line)
        ), line

if __name__ == '__main__': listed.write_text(listing())
