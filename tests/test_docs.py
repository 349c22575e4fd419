"The pure functions of docs/build.py: what show_doc becomes, and which link goes where"
import importlib.util, re, subprocess, sys
from pathlib import Path
import pytest

pytest.importorskip('nbdev')
from fastcore.nbio import mk_cell
spec = importlib.util.spec_from_file_location('docs_build', Path(__file__).parents[1]/'docs/build.py')
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
site, blob = build.site, build.blob

def test_pages_in_order_and_none_left_over(capsys):
    names = ['core', 'tutorials/b', 'index', 'schedule', 'tutorials/train', 'tutorials/a']
    assert sum(build.ordered(names).values(), []) == ['index', 'tutorials/train', 'schedule', 'core', 'tutorials/a', 'tutorials/b']
    assert build.ordered(names, {'': ['tutorials/b', 'tutorials/*', '*']})[''][:2] == ['tutorials/b', 'tutorials/a']
    with pytest.raises(SystemExit, match='no place for stray'): build.ordered([*names, 'stray'])

@pytest.mark.parametrize('md,sphinx,plain', [
    (f'[`A.b`]({site}core.html#a.b)', '{py:obj}`A.b`', f'[`A.b`]({site}core.html#a.b)'),
    (f'[`f()`]({site}core.html#f)', '{py:obj}`f() <f>`', f'[`f()`]({site}core.html#f)'),
    (f'[`A._b`]({site}core.html#a._b)', '`A._b`', '`A._b`'),                                     # private: on no page
    (f'[[`f`]({site}core.html#f)](core.ipynb)', '[`f`](/core.ipynb)', f'[`f`]({site}core.html)'),  # linked by hand, then again by nbdev
    ('[`Learner`](https://docs.fast.ai/learner.html#learner)',)*3,
    ('[x](core.ipynb#figures)', '[x](/core.ipynb#figures)', f'[x]({site}core.html#figures)'),
    ('[x](tutorials/a.ipynb)', '[x](/tutorials/a.ipynb)', f'[x]({site}tutorials/a.html)'),
    (f'[x]({site}core.html)', '[x](/core.ipynb)', f'[x]({site}core.html)'),
    (f'[x]({site})', '[x](/index.ipynb)', f'[x]({site})'),
    ('[x](../LICENSE)', f'[x]({blob}LICENSE)', f'[x]({blob}LICENSE)'),
    ('![x](images/x.png)', '![x](images/x.png)', '![x](nbs/images/x.png)'),
    ('[![x](images/x.png)](core.ipynb)', '[![x](images/x.png)](/core.ipynb)', f'[![x](nbs/images/x.png)]({site}core.html)'),
    ('[x](#here)',)*3, ('[x](mailto:a@b.c)',)*3, ('```\n[x](core.ipynb)\n```',)*3])
def test_links(md, sphinx, plain):
    assert build.links(md, 'index') == sphinx
    assert build.links(md, 'index', plain=True) == plain

def test_links_are_relative_to_their_page():
    assert build.links('[x](../core.ipynb) [y](../../LICENSE)', 'tutorials/a') == f'[x](/core.ipynb) [y]({blob}LICENSE)'

def _f(self,
    n:int, # Steps | of the optimizer
    *args,
    f=lambda x: x, # A function
    div:float=10., # The ratio
    wd=None,
    **kwargs # Passed on
) -> str: # A word
    "Say a word"

class _C:
    "A class"
    def __init__(self, n:int=1): pass
    def shown(self, a, /, b=2, *, c=3): "Shown"
    def before_fit(self): "An event"
    def undocumented(self): pass
    def explicit(self): "Has its own show_doc"
    @property
    def prop(self): "A property"
    @classmethod
    def load(cls, path): "A class method"

def test_symbol_method():
    head, doc, table, end = build.Symbol(_f, name='Learner.f')._repr_markdown_().split('\n\n')
    assert head == '::::{py:method} Learner.f(n, *args, f=..., div=10.0, wd=None, **kwargs)'
    assert (doc, end) == ('Say a word', '::::')
    assert table.splitlines()[2:] == [r'| `n` | `int` |  | Steps \| of the optimizer |', '| `f` |  | `...` | A function |',
        '| `div` | `float` | `10.0` | The ratio |', '| `wd` |  | `None` |  |', '| `**kwargs` |  |  | Passed on |', '| **Returns** | `str` |  | A word |']

def test_symbol_class_shows_documented_public_members(monkeypatch):
    monkeypatch.setattr(build.Symbol, 'explicit', {'C.explicit'})
    md = build.Symbol(_C, name='C')._repr_markdown_()
    assert [l for l in md.splitlines() if '{' in l] == ['::::{py:class} C(n=1)', ':::{py:method} C.shown(a, /, b=2, *, c=3)',
        ':::{py:property} C.prop', ':::{py:classmethod} C.load(path)']

def test_html_tables_become_markdown_and_other_html_loses_its_style():
    t = '<style>td {}</style><table><thead><tr><th></th><th>a</th></tr></thead><tbody><tr><th>x|y</th><td>0.5</td></tr></tbody></table>'
    assert build.html2md(t) == '|  | a |\n| --- | ---: |\n| x\\|y | 0.5 |'
    assert build.html2md(t.replace('<td>', '<td colspan=2>')).startswith('<table>')
    assert build.html2md(f'<div><style>p {{}}</style><b>no choice</b><br>2 &lt; 3{t}</div><div>wd: less</div>').split('\n\n') == ['no choice', '2 < 3', build.html2md(t), 'wd: less']
    assert build.html2md('<style>p {}</style><p>x</p>') == '<p>x</p>'

def test_directives_become_tags_and_unknown_ones_are_refused():
    build.directives(c := mk_cell('#| echo: false\n#| fig-alt: "Two axes"\nx = 1  #| not a directive'), 'core', 'Figures')
    assert (c.source, c.metadata['tags'], c.metadata['alt']) == ('x = 1  #| not a directive', ['remove-input'], 'Two axes')
    with pytest.raises(SystemExit, match='core.ipynb.*layout-ncol: 2'): build.directives(mk_cell('#| layout-ncol: 2\nx'), 'core', '')

def test_module_docstrings_lead_to_pages():
    lib, docs = Path(build.cfg.lib_path), {}
    for p in sorted(lib.glob('*.py')):
        docs[p.name] = m[1] if (m := re.search(r'^Docs: (\S+?)"*$', p.read_text(encoding='utf-8'), re.M)) else None
    made = {k:v for k,v in docs.items() if 'AUTOGENERATED' in (lib/k).read_text(encoding='utf-8') and k != '_modidx.py'}
    assert made and made == {k: f"{site}{k.removesuffix('.py')}.html.md" for k in made}
    names = sum(build.ordered(build.notebooks()).values(), [])
    assert [v for v in docs.values() if v and v[len(site):].removesuffix('.html.md') not in names] == []

def test_llms_txt():
    plain = {'index': '# lib\n\n> What it is.\n\ntext', 'tutorials/a_b': '# A\n\n> On [`f`](https://x.org/f), and more\n\n> a quotation'}
    head, *rest = build.llms({'': ['index'], 'Empty': [], 'Learn': ['tutorials/a_b']}, plain).split('\n\n')
    assert [head, rest[0]] == [f'# {build.cfg.lib_name}', '> What it is.']
    assert rest[2:] == ['## Start here', f'- [index]({site}index.html.md): What it is.', '## Learn', f'- [a b]({site}tutorials/a_b.html.md): On `f`, and more\n']
    with pytest.raises(SystemExit, match='index.ipynb has no subtitle'): build.llms({'': ['index']}, {'index': '# lib'})

def test_open_links(tmp_path, monkeypatch):
    monkeypatch.setattr(build, 'nbs', tmp_path)
    monkeypatch.setattr(build, 'root', tmp_path.parent)
    (tmp_path/'x.ipynb').write_text('"! pip install x"')
    to = f'{blob}{tmp_path.name}/x.ipynb'
    assert build.open_links('x') == f'<p class="open"><a href="{to}">Notebook</a> <a href="x.html.md">Markdown</a></p>'
    (tmp_path/'x.ipynb').write_text('"! [ -e /content ] && pip install x"')
    assert f"https://colab.research.google.com/github/{to.removeprefix('https://github.com/')}\">Colab" in build.open_links('x')

def test_warnings_stop_the_build(tmp_path):
    "Sphinx as build() calls it: a link to nowhere and a missing symbol are errors"
    (tmp_path/'index.md').write_text('# x\n\n[y](#nothing) {py:obj}`nothing`\n')
    res = subprocess.run([sys.executable, '-c', f"import runpy; runpy.run_path({str(build.__file__)!r})['sphinx']({str(tmp_path)!r}, {str(tmp_path/'out')!r}, {str(tmp_path/'t')!r})"],
                         capture_output=True, text=True)
    assert res.returncode == 1 and "'nothing'" in res.stderr and 'py:obj reference target not found: nothing' in res.stderr

def test_a_hidden_figure_stops_the_build(tmp_path, monkeypatch):
    "nbdev's `hide` takes the outputs of a cell with it"
    from fastcore.nbio import new_nb, write_nb
    monkeypatch.setattr(build, 'nbs', tmp_path)
    cell = mk_cell('#| hide\nplot()')
    cell['outputs'] = [dict(output_type='display_data', metadata={}, data={'image/png':'AAAA'})]
    write_nb(new_nb([mk_cell('# Title', 'markdown'), cell]), tmp_path/'x.ipynb')
    with pytest.raises(SystemExit, match='x.ipynb: a figure in a hidden cell is not shown'): build.processed('x')
