"The pure functions of docs/build.py: what show_doc becomes, and which link goes where"
import importlib.util, json, re, subprocess, sys
from pathlib import Path
import pytest

pytest.importorskip('nbdev')
import nbformat
from fastcore.nbio import mk_cell
spec = importlib.util.spec_from_file_location('docs_build', Path(__file__).parents[1]/'docs/build.py')
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
site, blob = build.site, build.blob

def test_pages_in_order_and_none_left_over(capsys):
    names = ['new', 'tutorials/b', 'index', 'fit', 'tutorials/train', 'tutorials/a']
    order = ['index', 'tutorials/train', 'fit', 'tutorials/a', 'tutorials/b', 'new']
    assert sum(build.ordered(names).values(), []) == order
    assert build.ordered(names, {'': ['tutorials/b', 'tutorials/*', '*']})[''][:2] == ['tutorials/b', 'tutorials/a']
    with pytest.raises(SystemExit, match='no place for a/b/stray'): build.ordered([*names, 'a/b/stray'])

@pytest.mark.parametrize('md,sphinx,plain', [
    (f'[`A.b`]({site}core.html#a.b)', '{py:obj}`A.b`', f'[`A.b`]({site}core.html#a.b)'),
    (f'[`f()`]({site}core.html#f)', '{py:obj}`f() <f>`', f'[`f()`]({site}core.html#f)'),
    (f'[`A._b`]({site}core.html#a._b)', '`A._b`', '`A._b`'), # private: on no page
    (f'[[`f`]({site}core.html#f)](core.ipynb)', '[`f`](/core.ipynb)', f'[`f`]({site}core.html)'), # by hand, by nbdev
    ('[`Learner`](https://docs.fast.ai/learner.html#learner)',)*3,
    ('[x](core.ipynb#figures)', '[x](/core.ipynb#figures)', f'[x]({site}core.html#figures)'),
    ('[x](tutorials/a.ipynb)', '[x](/tutorials/a.ipynb)', f'[x]({site}tutorials/a.html)'),
    (f'[x]({site}core.html)', '[x](/core.ipynb)', f'[x]({site}core.html)'),
    (f'[x]({site})', '[x](/index.ipynb)', f'[x]({site})'),
    ('[x](../LICENSE)', f'[x]({blob}LICENSE)', f'[x]({blob}LICENSE)'),
    ('![x](images/x.png)', '![x](images/x.png)', '![x](nbs/images/x.png)'),
    ('[![x](images/x.png)](core.ipynb)', '[![x](images/x.png)](/core.ipynb)',
     f'[![x](nbs/images/x.png)]({site}core.html)'),
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
    assert table.splitlines()[2:] == [
        r'| `n` | `int` |  | Steps \| of the optimizer |', '| `f` |  | `...` | A function |',
        '| `div` | `float` | `10.0` | The ratio |', '| `wd` |  | `None` |  |', '| `**kwargs` |  |  | Passed on |',
        '| **Returns** | `str` |  | A word |']

def test_a_function_that_reads_an_option_is_shown_by_its_name():
    from inspect import Parameter
    from types import SimpleNamespace
    assert build._type(SimpleNamespace(anno=_f, default=Parameter.empty)) == '_f'

def _g(n:int): # Steps
    """Count

    Raises: `ValueError` when `n` is negative,
    before anything happens
    See also: `_f`"""

def test_methods_of_private_classes_are_not_shown():
    assert build.private('_Search.f') and build.private('A._f') and not build.private('A.__call__')
    assert build.links(f'[`_Search.f`]({site}core.html#_search.f)', 'index') == '`_Search.f`'

def test_a_docstring_says_what_is_raised_and_what_to_read():
    md = build.Symbol(_g, name='g')._repr_markdown_()
    assert '| **Raises** |  | `ValueError` when `n` is negative, before anything happens |' in md
    assert md.endswith('**See also** `_f`\n\n::::') and 'Count\n\n|' in md
    assert build.sections('Raises the LR') == ('Raises the LR', {})

def _patched(self): "A"
_patched.__wrapped__, _patched.__qualname__ = _f, 'Learner.patched'

def test_a_parameter_is_no_link():
    link = f'[`progress`]({site}show.html#progress)'
    assert build.parameters(f'{link}\n| {link} | `bool` | {link} |') == f'{link}\n| `progress` | `bool` | {link} |'

def test_a_patched_context_manager_is_a_method():
    assert build.Symbol(_patched)._repr_markdown_().startswith('::::{py:method} Learner.patched(')

MODULE = '''
__all__ = ['helper', 'Report', 'found']
@patch
def _quiet(self:Learner): "Private"
def helper(): "For other modules"
class Report:
    "A result"
@patch
def plot(self:Report): "Of its own class"
@patch
@contextmanager
def run(self:Learner, n): """Runs

    and more"""
@patch(as_prop=True)
def both(self:(Learner,Recorder)): "Both"
def inner(): "Not exported"
def found(): "For users"
'''
def test_entry_points_come_first():
    assert build.entry_points(MODULE, {'Report','found'}) == [
        (0, 'Learner.run', 'Runs'), (0, 'Learner.both', 'Both'), (0, 'Recorder.both', 'Both'),
        (1, 'found', 'For users'), (2, 'Report', 'A result'), (3, 'helper', 'For other modules')]

def test_a_page_shows_entry_points_before_internals():
    "Sections move as a whole; in one, the call stands below the heading"
    def cells(*sources):
        new = dict(show_doc=nbformat.v4.new_code_cell).get
        return [new(o.split('(')[0], nbformat.v4.new_markdown_cell)(o) for o in sources]
    page = cells(
        'About', '## Parts', 'show_doc(helper)', 'Text', '## Results', 'Text on results', 'show_doc(Report.plot)',
        'show_doc(other)', 'show_doc(Report)', '## An example', 'Text', '## Run', 'How', 'show_doc(Learner.run)')
    found = build.entry_points(MODULE, {'Report','found'})
    assert [c.source for c in build.entry_points_first(page, found)] == [
        'About', '## Run', 'show_doc(Learner.run)', 'How', '## Results', 'show_doc(Report)', 'Text on results',
        'show_doc(Report.plot)', 'show_doc(other)', '## An example', 'Text', '## Parts', 'show_doc(helper)', 'Text']
    plain = cells('About', '## One', 'Text', '## Two')
    assert build.entry_points_first(plain, []) == plain
    page = cells('About', '## Background', '## Parts', 'show_doc(helper)', '## Run', '### How', 'show_doc(Learner.run)')
    assert [c.source for c in build.entry_points_first(page, found)] == [
        'About', '## Background', '## Run', '### How', 'show_doc(Learner.run)', '## Parts', 'show_doc(helper)']

def test_each_reference_page_begins_with_what_is_called():
    "No internal one stands before the first entry point. In a process of its own: pages define the modules once more"
    code = '''if True:
        import sys, json
        sys.path.insert(0, 'docs')
        import build
        pages = [o for o in build.ordered(build.notebooks())['Reference'] if build.offered(o)]
        print(json.dumps({o:[build.documented(c) for c in build.processed(o).cells] for o in pages}))'''
    run = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=build.root, capture_output=True, text=True)
    assert not run.returncode, run.stderr
    pages = json.loads(run.stdout.splitlines()[-1])
    assert len(pages)>10
    for name,documented in pages.items():
        ranks = {n:r for r,n,_ in build.offered(name)}
        docs = [ranks.get(o, 3) for o in documented if o]
        assert docs[0] == 0 or min(docs) > 0 and docs[0] < 3, name

def test_each_page_of_a_module_has_its_summary():
    "With the names that are called, above everything else"
    md = build.summary(build.offered('range_test'), 'range_test')
    assert md.splitlines()[2].startswith(f'| [`Learner.lr_range_test`]({site}range_test.html#learner.lr_range_test) | ')
    assert build.offered('index') == []

def test_symbol_class_shows_documented_public_members(monkeypatch):
    monkeypatch.setattr(build.Symbol, 'explicit', {'C.explicit'})
    md = build.Symbol(_C, name='C')._repr_markdown_()
    assert [l for l in md.splitlines() if '{' in l] == [
        '::::{py:class} C(n=1)', ':::{py:method} C.shown(a, /, b=2, *, c=3)', ':::{py:property} C.prop',
        ':::{py:classmethod} C.load(path)']

def test_html_becomes_markdown():
    t = ('<style>td {}</style><table><thead><tr><th></th><th>a</th></tr></thead>'
         '<tbody><tr><th>x|y</th><td>0.5</td></tr></tbody></table>')
    assert build.html2md(t) == '|  | a |\n| --- | --- |\n| x\\|y | 0.5 |'
    md = build.html2md(f'<div><style>p {{}}</style><b>no choice</b><br>2 &lt; 3{t}</div><div>a_b: less</div>')
    assert md.split('\n\n') == ['**no choice**  \n2 < 3', build.html2md(t), 'a_b: less']

def test_rows_of_a_table_of_claims_can_be_linked_to():
    md = '| Claim | n |\n| --- | --- |\n| Weight *decay*: [less](x.html) | 1 |\n| Weight decay, less | 2 |\n'
    rows = build.anchors(md).splitlines()
    assert rows[:2] == md.splitlines()[:2]
    assert [re.search('id="(.*?)" href="#(.*?)"', r).groups() for r in rows[2:]] == [
        ('weight-decay-less',)*2, ('weight-decay-less-2',)*2]
    assert rows[2].endswith('Weight *decay*: [less](x.html) | 1 |')
    assert build.anchors('no table') == 'no table'
    build.directives(c := mk_cell('#| table: cards\nx'), 'tutorials/evidence', '')
    assert c.metadata['tags'] == ['cards']

def test_what_search_engines_read():
    m = build.meta('tutorials/find_the_lr', '`Find` it', 'On `lr_max`')['html_meta']
    assert m['description'] == m['property=og:description'] == 'On lr_max' and 'learning rate finder' in m['keywords']
    assert (m['property=og:title'], m['property=og:url']) == (
        f'Find it: {build.cfg.lib_name}', f'{site}tutorials/find_the_lr.html')
    assert build.meta('index', build.cfg.lib_name, 'x')['html_meta']['property=og:url'] == site

def test_citation_is_a_page():
    md = build.citation()
    assert f'version = {{{build.cfg.version}}}' in md and md.count('@misc{smith20') == 2 and 'Topin, Nicholay' in md

def test_directives_become_tags_and_unknown_ones_are_refused():
    c = mk_cell('#| echo: false\n#| fig-alt: "Two axes"\nx = 1  #| not a directive')
    build.directives(c, 'core', 'Figures')
    assert (c.source, c.metadata['alt']) == ('x = 1  #| not a directive', 'Two axes')
    assert c.metadata['tags'] == ['remove-input']
    bad = mk_cell('#| layout-ncol: 2\nx')
    with pytest.raises(SystemExit, match='core.ipynb.*layout-ncol: 2'): build.directives(bad, 'core', '')

def test_module_docstrings_lead_to_pages():
    lib, docs = Path(build.cfg.lib_path), {}
    for p in sorted(lib.glob('*.py')):
        docs[p.name] = m[1] if (m := re.search(r'^Docs: (\S+?)"*$', p.read_text(encoding='utf-8'), re.M)) else None
    made = {k:v for k,v in docs.items() if 'AUTOGENERATED' in (lib/k).read_text(encoding='utf-8')}
    assert made and made == {k: f"{site}{k.removesuffix('.py')}.html.md" for k in made}
    names = sum(build.ordered(build.notebooks()).values(), [])
    assert [v for v in docs.values() if v and v[len(site):].removesuffix('.html.md') not in names] == []

def test_llms_txt():
    plain = {'index': '# lib\n\n> What it is.\n\ntext',
             'tutorials/a_b': '# A\n\n> On [`f`](https://x.org/f), and more\n\n> a quotation'}
    head, *rest = build.llms({'': ['index'], 'Empty': [], 'Learn': ['tutorials/a_b']}, plain).split('\n\n')
    assert [head, rest[0]] == [f'# {build.cfg.lib_name}', '> What it is.']
    assert rest[2:] == ['## Start here', f'- [index]({site}index.html.md): What it is.',
                        '## Learn', f'- [a b]({site}tutorials/a_b.html.md): On `f`, and more\n']
    with pytest.raises(SystemExit, match='index.ipynb has no subtitle'): build.llms({'': ['index']}, {'index': '# lib'})

def test_open_links(tmp_path, monkeypatch):
    monkeypatch.setattr(build, 'nbs', tmp_path)
    monkeypatch.setattr(build, 'root', tmp_path.parent)
    (tmp_path/'x.ipynb').write_text('"! pip install x"')
    to = f'{blob}{tmp_path.name}/x.ipynb'
    edit = to.replace('/blob/', '/edit/')
    assert build.open_links('x') == (f'<p class="open"><a href="{to}">Notebook</a> <a href="{edit}">Edit</a> '
                                     '<a href="x.html.md">Markdown</a></p>')
    (tmp_path/'x.ipynb').write_text('"! [ -e /content ] && pip install x"')
    colab = to.replace('https://github.com/', 'https://colab.research.google.com/github/')
    assert f'{colab}">Colab' in build.open_links('x')

def test_warnings_stop_the_build(tmp_path):
    "Sphinx as build() calls it: a link to nowhere and a missing symbol are errors"
    (tmp_path/'index.md').write_text('# x\n\n[y](#nothing) {py:obj}`nothing`\n')
    args = [str(tmp_path), str(tmp_path/'out'), str(tmp_path/'t')]
    code = f"import runpy; runpy.run_path({build.__file__!r})['sphinx'](*{args})"
    res = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert res.returncode == 1 and "'nothing'" in res.stderr
    assert 'py:obj reference target not found: nothing' in res.stderr

def test_a_hidden_figure_stops_the_build(tmp_path, monkeypatch):
    "nbdev's `hide` takes the outputs of a cell with it"
    from fastcore.nbio import new_nb, write_nb
    monkeypatch.setattr(build, 'nbs', tmp_path)
    cell = mk_cell('#| hide\nplot()')
    cell['outputs'] = [dict(output_type='display_data', metadata={}, data={'image/png':'AAAA'})]
    write_nb(new_nb([mk_cell('# Title', 'markdown'), cell]), tmp_path/'x.ipynb')
    with pytest.raises(SystemExit, match='x.ipynb: a figure in a hidden cell is not shown'): build.processed('x')

def test_the_map_of_the_modules_is_of_this_code(monkeypatch):
    "The stored table of the page Contributing, against the imports: its cells run once more"
    import json
    page = Path(build.nbs)/'tutorials/contributing.ipynb'
    cells = {c['id']:c for c in json.loads(page.read_text(encoding='utf-8'))['cells']}
    stored = ''.join(cells['f7a1c2d4']['outputs'][0]['data']['text/markdown'])
    monkeypatch.chdir(page.parent)
    monkeypatch.syspath_prepend(page.parents[2]/'tests')
    space = {}
    for i in ('985c043d', 'c3e7a915', 'aeb74292', 'f7a1c2d4'): exec(''.join(cells[i]['source']), space)
    again = eval(''.join(cells['f7a1c2d4']['source']).split('\n\n')[-1], space).data
    assert stored == again, 'run: jupyter execute --inplace nbs/tutorials/contributing.ipynb && nbdev-clean'
