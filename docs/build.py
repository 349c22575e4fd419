"""Build the documentation site, or README.md (`--readme`), or test the site in a browser (`--test`)

    nbs/index.ipynb --nbdev--> `markdown` --nbconvert--> README.md
    nbs/**/*.ipynb  --nbdev--> `page` --> _proc/*.ipynb --Sphinx, myst-nb, furo--> _docs/*.html

nbdev applies the `#|` directives, runs `show_doc` for each exported definition and links backticked symbols, as on any
nbdev site. Nothing is executed but imports and exported cells; outputs are the stored ones. This file turns the result
into Sphinx's terms: a symbol's documentation becomes a `py:` directive (`Symbol`) and a link to this site a checked
reference (`links`), so that the build fails on a missing symbol, page or heading. `conf.py` has Sphinx's settings.
"""
import argparse, ast, base64, difflib, hashlib, inspect, json, os, re, shutil, subprocess, sys, tarfile, time
from fnmatch import fnmatch
from pathlib import Path

from fastcore.docments import ShowDocRenderer, docments
from fastcore.nbio import mk_cell, nb2str, read_nb
from nbdev import showdoc
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.processors import FilterDefaults

# The order of the pages; the changelog and the citation follow. A pattern takes the notebooks of its folder that no
# pattern before it took. A notebook that none takes is an error.
def tutorials(names): return [f'tutorials/{o}' for o in names.split()]
PAGES = {
    '': ['index'],
    'Learn': tutorials('understanding* glossary'),
    'How to': tutorials('train_without_tuning find_the_lr train transfer* balance compare_fairly scale_up '
                        'watch_curvature'),
    'Reference': '*superconverge* auto* fit range_test curvature_lr regularization balance compare recipes cli '
                 'schedule cycle checkpoint data models curvature state'.split(),
    'Evidence': tutorials('evidence *_study works_with fastai_traps'),
    'Project': tutorials('against_the_others contributing'),
    'More': ['tutorials/*'],
    'Inside': ['*']}
COMMANDS = 'demo train show_recipes run compare main'   # what the shell calls
# What readers type into the search, where the page itself says it in other words
KEYWORDS = {
    'index': 'superconvergence, super convergence, one cycle, onecycle, 1cycle, install, installation',
    'tutorials/find_the_lr': 'learning rate finder, lr_find, lr finder, learning rate range test',
    'tutorials/transfer*': 'transfer learning, fine-tuning, fine tune, finetune, pretrained',
    'tutorials/understanding*': 'superconvergence, glossary, cyclical learning rates',
    'tutorials/balance': 'weight decay, dropout, regularization',
    'citation': 'citation, cite, bibtex, reference, licence, license, version'}
NPM = { # version, and npm's sha512
    'mathjax': ('3.2.2',
        'Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw=='),
    'playwright-core': ('1.65.1',
        'hqPpz7blSMPxWVdoeE1yiBSzXsKiVOd2k+kjCvmUywD2GPO2Dd9HfcWnq9NN0GHbNZDFgZ9JfBFr+X5/BLo0qw=='),
    'axe-core': ('4.14.1',
        'FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==')}
LLMS = ('fastai learners trained with one cycle of very large learning rates. `from superconv_fastai.all import *` has '
        'every public name. Its faces: `learn.lr_range_test`, `learn.fit_superconv`, `learn.regularizers`, '
        '`learn.balance_regularization`, `learn.curvature_lr_find`, `compare_fits`.')
BROWSERS = 'chromium chromium-browser google-chrome google-chrome-stable'.split()

root = Path(__file__).resolve().parent.parent
cfg = get_config(root)
nbs, proc, out, cache, figures = cfg.nbs_path, root/'_proc', cfg.doc_path, root/'build', root/'docs/_static/readme'
site, blob = cfg.doc_url.rstrip('/') + '/', f'{cfg.git_url}/blob/{cfg.branch}/'

def ordered(names, sections=PAGES):
    "`names` of notebooks (no suffix, relative to nbs) by section"
    def takes(pattern, name): return fnmatch(name, pattern) and pattern.count('/') == name.count('/')
    left, res = sorted(names), {}
    for section,pats in sections.items():
        res[section] = list(dict.fromkeys(o for p in pats for o in left if takes(p, o)))
        left = [o for o in left if o not in res[section]]
    if left: sys.exit(f"docs/build.py: PAGES has no place for {', '.join(left)}")
    return res

def notebooks():
    rel = (p.relative_to(nbs) for p in nbs.rglob('*.ipynb'))
    return [p.with_suffix('').as_posix() for p in rel if not any(o[0] in '._' for o in p.parts)]

# ---- what show_doc shows ----

def _type(p):
    a = p.anno
    if a in (inspect.Parameter.empty, None, type(None)) or callable(p.default) and a is type(p.default): return ''
    if inspect.isfunction(a): return a.__name__   # what reads an option of the command
    return re.sub(r'\w+\.(?=\w)', '', a if isinstance(a, str) else inspect.formatannotation(a))

def _default(p):
    if p.default is inspect.Parameter.empty: return ''
    res = getattr(p.default, '__name__', None) or repr(p.default)
    try: ast.parse(res, mode='eval')
    except SyntaxError: return '...'
    return res if len(res) < 60 and '\n' not in res else '...'

def _stars(p): return {p.kind.VAR_POSITIONAL:'*', p.kind.VAR_KEYWORD:'**'}.get(p.kind, '')

def _signature(dm):
    res, prev = [], None
    for k,p in dm.items():
        if prev == p.kind.POSITIONAL_ONLY != p.kind: res.append('/')
        if p.kind == p.kind.KEYWORD_ONLY and prev not in (p.kind.KEYWORD_ONLY, p.kind.VAR_POSITIONAL): res.append('*')
        res.append(_stars(p) + k + (_default(p) and f'={_default(p)}'))
        prev = p.kind
    return ', '.join(res)

def _code(s): return f'`{s}`' if s else ''

def table(rows, head, align=None):
    "A markdown table, without the columns that are empty in every row"
    keep = [i for i in range(len(head)) if any(r[i] for r in rows)]
    line = lambda r: '| ' + ' | '.join(re.sub(r'\s+', ' ', str(r[i])).replace('|', r'\|') for i in keep) + ' |'
    return '\n'.join([line(head), line(align or ['---']*len(head)), *map(line, rows)])

_re_section = re.compile(r'^[ \t]*(Raises|See also):[ \t]*(.+(?:\n(?![ \t]*(?:Raises|See also):)[ \t]*\S.*)*)', re.M)
def sections(doc):
    "A docstring without its paragraphs `Raises: ...` and `See also: ...`, and those by name"
    return _re_section.sub('', doc).strip(), {k: ' '.join(v.split()) for k,v in _re_section.findall(doc)}

def event(name): return re.match('(before|after)_', name)
def private(name): return any(re.match('_(?!_)', o) for o in name.split('.'))

class Symbol(ShowDocRenderer):
    "Renders a symbol, and the documented public members of a class, as directives of Sphinx's Python domain"
    explicit = ()  # names that have a show_doc of their own
    def __init__(self, sym, name=None, title_level=3):
        if inspect.isclass(sym): self.kind = 'class'
        elif isinstance(sym, (property,classmethod,staticmethod)): self.kind = type(sym).__name__
        else: self.kind = 'function' if callable(sym) else 'data'
        # `@patch` names what it decorates; what that wraps in turn keeps its own name
        name = name or getattr(sym, '__qualname__', None) if hasattr(sym, '__wrapped__') else name
        super().__init__(getattr(sym, '__func__', sym), name=name)
        if self.kind == 'function' and '.' in self.nm: self.kind = 'method'

    def signature(self, dm):
        plain = self.kind in ('property','data') or getattr(self.sym, '__init__', 0) is object.__init__
        return '' if plain else f'({_signature(dm)})'

    def rows(self, dm, ret, raises):
        "The table of parameters: what is documented, what is returned, what is raised"
        res = [[_code(_stars(p)+k), _code(_type(p)), _code(_default(p)), p.docment or '']
               for k,p in dm.items() if p.docment or not _stars(p)]
        if ret and self.kind not in ('class','property') and (_type(ret) or ret.docment):
            res.append(['**Returns**', _code(_type(ret)), '', ret.docment or ''])
        return res + ([['**Raises**', '', '', raises]] if raises else [])

    def _repr_markdown_(self, colons=4):
        dm = docments(self.sym, full=True, args_kwargs=True) if callable(self.sym) else {}
        ret, bound = dm.pop('return', None), self.kind in ('class','method','property','classmethod')
        if dm and bound and next(iter(dm)) in ('self','cls'): dm.pop(next(iter(dm)))
        doc, more = sections(self.docs or '')
        parts = [f"{':'*colons}{{py:{self.kind}}} {self.nm}{self.signature(dm)}", doc]
        rows = self.rows(dm, ret, more.get('Raises'))
        if any(r[-1] for r in rows): parts.append(table(rows, ['Parameter', 'Type', 'Default', 'Details']))
        if 'See also' in more: parts.append(f"**See also** {more['See also']}")
        if self.kind == 'class': parts += [o._repr_markdown_(colons-1) for o in self.members()]
        return '\n\n'.join(o for o in [*parts, ':'*colons] if o)

    def __str__(self): return str(self.dm).replace('__main__.', '') + (f'\n    "{self.docs}"' if self.docs else '')
    __repr__ = __str__

    def members(self):
        "Public members that the class itself defines and documents. fastai's events are not for calling"
        for k,v in vars(self.sym).items():
            nm = f'{self.nm}.{k}'
            if k[0] == '_' or event(k) or nm in self.explicit: continue
            if v.__doc__ and (inspect.isfunction(v) or isinstance(v, (property,classmethod,staticmethod))):
                if (o := Symbol(v, nm)).docs: yield o

def public():
    "The names of `superconv_fastai.all`"
    import importlib
    return {k for k in vars(importlib.import_module(f'{cfg.lib_name}.all')) if k[0] != '_'}

def _patched(f):
    "The classes whose method `f` becomes by `@patch`"
    if not (isinstance(f, ast.FunctionDef) and f.args.args): return []
    if not any(ast.unparse(d).startswith('patch') for d in f.decorator_list): return []
    anno = f.args.args[0].annotation
    return [ast.unparse(o) for o in (anno.elts if isinstance(anno, ast.Tuple) else [anno] if anno else [])]

def entry_points(source, exported):
    """What a module offers, as (rank, name, first line of the docstring): 0 for methods of fastai's classes, 1 and 2
    for functions and classes that are `exported`, 3 for the rest of `__all__`"""
    body = ast.parse(source).body
    names = next((ast.literal_eval(o.value) for o in body if isinstance(o, ast.Assign)
                  and getattr(o.targets[0], 'id', '') == '__all__'), [])
    own, ranked = {o.name for o in body if isinstance(o, ast.ClassDef)}, []
    for o in body:
        if not isinstance(o, (ast.FunctionDef,ast.ClassDef)) or o.name[0] == '_': continue
        on, line = _patched(o), (ast.get_docstring(o) or '').split('\n')[0]
        if not line: continue
        ranked += [(0, f'{c}.{o.name}', line) for c in on if c not in own]
        rank = 3 if o.name not in exported else 2 if isinstance(o, ast.ClassDef) else 1
        if not on and o.name in names: ranked.append((rank, o.name, line))
    return sorted(ranked, key=lambda r: r[0])

def offered(name):
    "`entry_points` of the module of page `name`; none where there is no module"
    path = Path(cfg.lib_path)/f'{name}.py'
    exported = public() | set(COMMANDS.split() if name == 'cli' else ())
    return entry_points(path.read_text(encoding='utf-8'), exported) if path.exists() else []

def summary(found, name):
    "A table of what was `found` on page `name`; nothing for one name only"
    if len(found) < 2: return ''
    rows = [[f'[`{n}`]({site}{name}.html#{n.lower()})', NbdevLookup().linkify(d)] for _,n,d in found]
    return table(rows, ['On this page', 'What it does'])

def documented(c):
    "The name that a cell documents, or None"
    m = c.cell_type == 'code' and re.match(r'show_doc\(([\w.]+)', c.source.strip().split('\n')[-1])
    return m[1] if m else None

def entry_points_first(cells, found):
    """The cells of a page in the order of its readers, where a notebook defines first what it uses later: sections (H2)
    with methods of fastai's classes, with other entry points, with internals alone. A section that documents nothing
    stays with the one before it, or at the top"""
    ranks, sections = {n:r for r,n,_ in found}, [[]]
    def rank(c):   # a method is where its class is
        name = documented(c) or ''
        return ranks.get(name, ranks.get(name.split('.')[0], 3))
    for c in cells:
        if c.cell_type == 'markdown' and c.source.startswith('## '): sections.append([])
        sections[-1].append(c)
    keys = [min(([0, 1, 1, 2][rank(c)] for c in o if documented(c)), default=None) for o in sections]
    keys[0] = before = -1   # what the page is about
    for i,k in enumerate(keys): keys[i] = before = before if k is None else k
    order = sorted(range(len(keys)), key=keys.__getitem__)
    def within(o): # entry points below the heading, but for those that a heading of their own (H3) introduces
        own = next((i for i,c in enumerate(o) if c.cell_type == 'markdown' and c.source.startswith('### ')), len(o))
        entries = [c for c in o[:own] if ranks.get(documented(c), 3) < 3]
        return [*o[:1], *sorted(entries, key=rank), *(c for c in o[1:] if c not in entries)]
    return [c for i in order for c in within(sections[i])]

# ---- from a notebook to cells for Sphinx, or for plain markdown ----

def markdown_cell(source):
    import nbformat   # not at the top: it takes seconds
    return nbformat.v4.new_markdown_cell(source)

def split_title(nb, name):
    """The title of `nb`; its H1 gets a cell of its own, as nbdev turns that cell into front matter and would lose what
    follows the subtitle"""
    first = next((c for c in nb.cells if c.cell_type == 'markdown'), None)
    m = first and re.match(r'\s*# +(.+)', first.source)
    if not m: sys.exit(f'nbs/{name}.ipynb does not begin with an H1')
    nb.cells.insert(nb.cells.index(first)+1, mk_cell(first.source[m.end():].strip(), 'markdown'))
    first.source = m[0]
    return m[1].strip()

FIGURES = ('image/svg+xml', 'image/png')
def is_figure(data): return any(k in data for k in FIGURES)

def refuse_hidden_figures(nb, name):
    "nbdev's `hide` takes the outputs too"
    for c in nb.cells:
        drawn = any(is_figure(o.get('data', {})) for o in c.get('outputs', []))
        if drawn and re.search(r'^#\|\s*hide\s*$', c.source, re.M):
            sys.exit(f'nbs/{name}.ipynb: a figure in a hidden cell is not shown, '
                     f'hide its code with `#| echo: false`:\n{c.source}')

def processed(name):
    "Notebook `name` as nbdev processes it for a site"
    import nbformat
    nb = read_nb(nbs/f'{name}.ipynb')
    title = split_title(nb, name)
    refuse_hidden_figures(nb, name)
    Symbol.explicit = set(re.findall(r'\bshow_doc\(\s*([\w.]+)', '\n'.join(c.source for c in nb.cells)))
    showdoc.BasicMarkdownRenderer, os.environ['IN_TEST'] = Symbol, '1'
    FilterDefaults()(nb)
    nb = nbformat.reads(nb2str(nb), 4)
    def wanted(c): # no events and no methods of private classes, which nbdev documents when they are patched
        doc = documented(c) or ''
        return (c.source and 'THIS FILE WAS AUTOGENERATED' not in c.source and not private(doc)
                and not event(doc.split('.')[-1]))
    found, heading = offered(name), title
    shown = entry_points_first(filter(wanted, nb.cells[1:]), found)
    nb.cells = [markdown_cell(f'# {title}'), *shown]
    for c in nb.cells:
        c.metadata.pop('execution', None)   # times that nbdev notes where it ran an import; nbformat wants text there
        if c.cell_type == 'markdown':
            heading = ([heading] + re.findall(r'^#+ +(.+)', c.source, re.M))[-1].replace('`', '')
            if re.search(r'^:{3,}', c.source, re.M):
                sys.exit(f'nbs/{name}.ipynb: Quarto blocks (:::) are not shown, use a blockquote:\n{c.source}')
        else: directives(c, name, heading)
    if table := summary(found, name):
        head, *rest = nb.cells[1].source.split('\n\n', 1)   # below the subtitle
        nb.cells[1].source = '\n\n'.join([head, table, *rest])
    nb.metadata['language_info'] = dict(name='python', pygments_lexer='ipython3')
    return nb

# a directive that is left in a code cell, and the tag that says the same to myst-nb, which makes it a class too
TAGS = {'echo: false':'remove-input', 'output: false':'remove-output', 'include: false':'remove-cell',
        'code-fold: true':'hide-input', 'code-fold: show':None, 'table: cards':'cards'}
def directives(c, name, heading):
    "Turn the Quarto directives that nbdev leaves in a code cell into tags, and drop the rest of the `#|` lines"
    d = dict(re.findall(r'^#\| *([\w-]+): *(.*?) *$', c.source, re.M))
    c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M).strip('\n')
    c.metadata['tags'] = [t for k,t in TAGS.items() if t and d.get(k.split(':')[0]) == k.split(': ')[1]]
    c.metadata['alt'] = d.get('fig-alt', f'Figure: {heading}').strip('"\'')
    known = 'fig-alt output eval code-summary'.split()
    unknown = [f'{k}: {v}' for k,v in d.items() if f'{k}: {v}' not in TAGS and k not in known]
    if unknown: sys.exit(f"nbs/{name}.ipynb: docs/build.py does not know the directive {', '.join(unknown)}")

def _is_doc(c): return c.cell_type == 'code' and c.source.startswith('show_doc(') and 'remove-input' in c.metadata.tags
def _data(c): return [o.data for o in c.get('outputs', []) if 'data' in o]

def parameters(md):
    "A symbol's documentation where no parameter is a link: nbdev takes those for symbols of the same name"
    return re.sub(r'^\| \[(`[^`]+`)\]\([^)]*\) \|', r'| \1 |', md, flags=re.M)

def page(nb, name):
    "Notebook for Sphinx"
    for i,c in enumerate(nb.cells):
        if _is_doc(c): nb.cells[i] = c = markdown_cell('\n\n'.join(parameters(d['text/markdown']) for d in _data(c)))
        if c.cell_type == 'markdown': c.source = links(c.source, name)
        else: c.metadata['mystnb'] = dict(image=dict(alt=c.metadata.pop('alt')))
        for d in _data(c):
            if 'text/markdown' in d:
                d['text/markdown'] = links(d['text/markdown'], name)
                if 'cards' in c.metadata.tags: d['text/markdown'] = anchors(d['text/markdown'])
    # nbdev's links from elsewhere name a symbol in lower case; Sphinx's anchors keep the case
    shown = {s for c in nb.cells for s in _shown(c.source)}
    def lower(m): return m[0] if m[1].lower() in shown else f'<div id="{m[1].lower()}"></div>\n\n{m[0]}'
    for c in nb.cells:
        if c.cell_type == 'markdown': c.source = re.sub(_re_shown, lower, c.source)
    return nb

_re_shown = re.compile(r'^:{3,}\{py:\w+\} ([\w.]+)', re.M)
def _shown(s): return re.findall(_re_shown, s)

# the rows of a table with this tag can be linked to, and are cards on a phone
def anchors(md):
    "A markdown table whose rows can be linked to, each by the first words of its first cell"
    seen = set()
    def row(m):
        words = re.findall(r'[a-z0-9]+', re.sub(r'\]\([^)]*\)|<[^>]*>', ' ', m[1]).lower())[:8]
        if not words: return m[0]
        slug = '-'.join(words)
        while slug in seen: slug += '-2'
        seen.add(slug)
        return f'| <a class="row" id="{slug}" href="#{slug}" aria-label="Link to this row">#</a> {m[1].strip()} |'
    parts = re.split(r'^(\| *:?-+.*\n)', md, maxsplit=1, flags=re.M)
    if len(parts) == 1: return md
    head, rule, rows = parts
    return head + rule + re.sub(r'^\|((?:\\\||[^|\n])*)\|', row, rows, flags=re.M)

def plain_output(c, d, name, images):
    "What an output is in plain markdown"
    if is_figure(d):
        if images is None: return ''
        if 'image/png' not in d: sys.exit(f'nbs/{name}.ipynb: README needs its figures as PNG too:\n{c.source}')
        file = f'figure-{len(images)+1}.png'
        images[file] = base64.b64decode(d['image/png'])
        return f'![{c.metadata.alt}]({figures.relative_to(root).as_posix()}/{file})'
    if 'text/html' in d: return html2md(d['text/html'])
    if 'text/markdown' in d: return links(d['text/markdown'], name, plain=True)
    return f"```text\n{d.get('text/plain', '')}\n```"

def markdown(nb, name, images=None):
    """Notebook as markdown that needs no Sphinx. Figures go into the dict `images` as bytes by file name; when it is
    None they are left out"""
    from nbconvert import MarkdownExporter
    for i,c in enumerate(nb.cells):
        if _is_doc(c):
            nb.cells[i] = c = markdown_cell('\n\n'.join(f"```python\n{d['text/plain']}\n```" for d in _data(c)))
        if c.cell_type == 'markdown': c.source = links(c.source, name, plain=True)
        for d in _data(c):
            md = plain_output(c, d, name, images)
            d.clear()
            d['text/markdown'] = md
    tags = dict(enabled=True, remove_cell_tags=['remove-cell'], remove_input_tags=['remove-input'],
                remove_all_outputs_tags=['remove-output'])
    md, _ = MarkdownExporter(config={'TagRemovePreprocessor': tags}).from_notebook_node(nb)
    return re.sub(r'\n{3,}', '\n\n', '\n'.join(l.rstrip() for l in md.splitlines())).strip() + '\n'

_re_own = re.compile(r'\[`([^`]+)`\]\(' + re.escape(site) + r'[\w./-]+\.html(?:#[\w.]*)?\)')
_re_image, _re_code, _re_text = r'!\[[^\]\n]*\]\([^)\s]*\)', r'`[^`\n]*`', r'[^\[\]`\n]'
_re_link = re.compile(rf'(!?)\[((?:{_re_image}|{_re_code}|{_re_text})*)\]\(([^)\s]+)\)')

def _own(m, plain):
    "The link of a symbol of this package. nbdev links private names too, which the site does not show"
    sym = m[1].removesuffix('()')
    if private(sym) or sym.split('.')[-1][0] == '_': return f'`{m[1]}`'
    if plain: return m[0]
    return f'{{py:obj}}`{m[1]}`' if sym == m[1] else f'{{py:obj}}`{m[1]} <{sym}>`'

def _target(to, name, plain, image):
    "Where the link `to` on page `name` leads"
    path,_,frag = to.partition('#')
    if to.startswith(site) and not plain: full = nbs/((path[len(site):].removesuffix('.html') or 'index') + '.ipynb')
    elif re.match(r'[a-z]+:|#|$', to) or image and not plain: return to
    else: full = Path(os.path.normpath(nbs/Path(name).parent/path))
    inside = full.is_relative_to(nbs)
    if inside and not plain: path = '/' + full.relative_to(nbs).as_posix()   # from the top of Sphinx's source
    elif inside and full.suffix == '.ipynb': path = site + full.relative_to(nbs).with_suffix('.html').as_posix()
    else: path = ('' if image else blob) + full.relative_to(root).as_posix()
    return path + (f'#{frag}' if frag else '')

def links(md, name, plain=False):
    """Rewrite the links of page `name`: symbols and pages for Sphinx to check, or web addresses if `plain`; files
    outside of nbs in the repository"""
    def rel(m): return f'{m[1]}[{_re_link.sub(rel, m[2])}]({_target(m[3], name, plain, m[1])})'
    def text(s):
        s = re.sub(r'\[\[(`[^`]+`)\]\([^)\s]+\)\]\(', r'[\1](', s)   # a symbol that nbdev linked inside of a link
        return _re_link.sub(rel, _re_own.sub(lambda m: _own(m, plain), s))
    parts = re.split(r'(^```.*?^```|^~~~.*?^~~~)', md, flags=re.M|re.S)
    return ''.join(s if i%2 else text(s) for i,s in enumerate(parts))

def html2md(html):
    "HTML as markdown"
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter
    soup = BeautifulSoup(html, 'html.parser')
    for o in soup(['style','script']): o.decompose()
    for o in soup(['td','th']):
        for t in o.find_all(string=re.compile(r'\|')): t.replace_with(t.replace('|', r'\|'))
    return MarkdownConverter(escape_underscores=False, escape_asterisks=False).convert_soup(soup).strip()

# ---- what is built ----

def readme():
    "README.md and its figures: bytes by path"
    if not (nbs/'index.ipynb').exists():
        sys.exit('docs/build.py: nbs/index.ipynb, the source of README.md and of the home page, is missing')
    images = {}
    md = markdown(processed('index'), 'index', images)
    md = md.replace('\n\n', '\n\n<!-- Made by docs/build.py from nbs/index.ipynb: edit that -->\n\n', 1)
    return {root/'README.md': md.encode(), **{figures/k:v for k,v in images.items()}}

def write_readme():
    files = readme()
    shutil.rmtree(figures, ignore_errors=True)
    for p,b in files.items():
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_bytes(b)

def check_readme():
    files = readme()
    old = {p:p.read_bytes() for p in [root/'README.md', *figures.glob('*')] if p.exists()}
    bad = [p.relative_to(root).as_posix() for p in sorted({*files, *old}) if files.get(p) != old.get(p)]
    if not bad: return
    def text(d): return d.get(root/'README.md', b'').decode().splitlines(keepends=True)
    sys.exit(''.join(difflib.unified_diff(text(old), text(files), 'README.md', 'from nbs/index.ipynb')) +
             f"\nOut of step with nbs/index.ipynb: {', '.join(bad)}. Run `python docs/build.py --readme`.")

def fetch(name):
    "The archive of package `name` from npm, without its dependencies; fetched once and checked"
    ver, sha = NPM[name]
    tgz = cache/f'{name}-{ver}.tgz'
    if not tgz.exists():
        if not shutil.which('npm'):
            sys.exit(f'docs/build.py needs npm to fetch {name}: install Node.js, '
                     f'or put {tgz.name} from npm into {cache}')
        cache.mkdir(exist_ok=True)
        cmd = ['npm', 'pack', '--silent', f'{name}@{ver}', '--pack-destination', cache]
        subprocess.run(cmd, check=True, cwd=cache, stdout=subprocess.DEVNULL)
    found = base64.b64encode(hashlib.sha512(tgz.read_bytes()).digest()).decode()
    return tgz if found == sha else sys.exit(f'{tgz} is not what was expected: delete it and try again')

def npm(name, wanted=lambda path: True, dest=None):
    "The files that are `wanted` of package `name` from npm, in `dest` or in build/"
    tgz, dest = fetch(name), dest or cache/name
    shutil.rmtree(dest, ignore_errors=True)
    with tarfile.open(tgz) as t:
        for m in t.getmembers():
            rel = m.name.removeprefix('package/')
            if m.isfile() and wanted(rel):
                (dest/rel).parent.mkdir(parents=True, exist_ok=True)
                (dest/rel).write_bytes(t.extractfile(m).read())
    return dest

def mathjax():
    "MathJax and its fonts for the site, so that math needs no network"
    def wanted(path): return path == 'es5/tex-chtml-full.js' or path.startswith('es5/output/chtml/fonts/woff-v2/')
    npm('mathjax', wanted, cache/'static/mathjax')

def subtitle(md, name):
    "What a page is about: the line `> ...` below its H1, without links"
    if not (m := re.search(r'^> *(.+)', md, re.M)): sys.exit(f'nbs/{name}.ipynb has no subtitle (`> ...`) below its H1')
    return _re_link.sub(r'\2', m[1]).strip()

def llms(sections, plain):
    "llms.txt (llmstxt.org): the pages as plain markdown, a line for each. `plain` has the markdown by name"
    def line(name):
        return f"- [{Path(name).name.replace('_', ' ')}]({site}{name}.html.md): {subtitle(plain[name], name)}"
    title = f"# {cfg.lib_name}\n\n> {subtitle(plain['index'], 'index')}\n\n{LLMS}"
    parts = [f"## {k or 'Start here'}\n\n" + '\n'.join(map(line, v)) for k,v in sections.items() if v]
    return '\n\n'.join([title, *parts]) + '\n'

def open_links(name):
    "Where a reader can open or change the notebook of page `name`, in HTML. In Colab only what installs itself there"
    path = nbs/f'{name}.ipynb'
    to = {'Notebook': blob + path.relative_to(root).as_posix()}
    to |= {'Edit': to['Notebook'].replace('/blob/', '/edit/', 1), 'Markdown': f'{path.stem}.html.md'}
    if '[ -e /content ]' in path.read_text(encoding='utf-8'):
        to['Colab'] = to['Notebook'].replace('https://github.com', 'https://colab.research.google.com/github')
    return '<p class="open">' + ' '.join(f'<a href="{v}">{k}</a>' for k,v in to.items()) + '</p>'

def meta(name, title, about):
    "What search engines, previews of links and the site's own search read about a page"
    phrases = ', '.join(v for k,v in KEYWORDS.items() if fnmatch(name, k))
    words = dict.fromkeys(phrases.split(', ') + re.findall(r'[\w-]+', phrases)) # Sphinx takes each as one word
    about, full = re.sub(r'[`*]', '', about), title.replace('`', '')
    if name != 'index': full += f': {cfg.lib_name}'
    fields = {'description': about, 'keywords': ', '.join(filter(None, words)), 'property=og:title': full,
              'property=og:description': about, 'property=og:type': 'website',
              'property=og:url': site if name == 'index' else f'{site}{name}.html',
              'property=og:site_name': cfg.lib_name, 'property=og:image': f'{site}_static/readme/figure-1.png'}
    return {'html_meta': {k:v for k,v in fields.items() if v}}

def with_meta(name, title, about, text):
    "Markdown with that in front"
    import yaml
    return '---\n' + yaml.safe_dump({'myst': meta(name, title, about)}, width=1000) + f'---\n\n{text}\n'

def changelog():
    "CHANGELOG.md as a page"
    text = NbdevLookup().linkify((root/'CHANGELOG.md').read_text(encoding='utf-8'))
    return with_meta('changelog', 'Changelog', 'What has changed, by version', links(text, '../CHANGELOG'))

def citation():
    "CITATION.cff as a page"
    import yaml
    c = yaml.safe_load((root/'CITATION.cff').read_text(encoding='utf-8'))
    def author(a): return f"{{{a['name']}}}" if 'name' in a else f"{a['family-names']}, {a['given-names']}"
    def entry(kind, key, o, **more):
        authors = ' and '.join(map(author, o['authors']))
        fields = dict(title=f"{{{o['title']}}}", author=authors, **more, url=o['url'])
        return f'@{kind}{{{key},\n' + ',\n'.join(f'  {k} = {{{v}}}' for k,v in fields.items()) + '\n}'
    entries = [entry('software', cfg.lib_name, c, version=c['version'], license=c['license'])]
    for o in c['references']:
        entries.append(entry('misc', f"{o['authors'][0]['family-names'].lower()}{o['year']}", o, year=o['year']))
    bibtex = '\n\n'.join(entries)
    about = f"How to cite {cfg.lib_name}, version {cfg.version}, licence {c['license']}"
    text = (f"# Citation\n\n> {about}\n\n{c['message']} [CITATION.cff]({blob}CITATION.cff) says the same to programs, "
            f"and [LICENSE]({blob}LICENSE) what you may do with the code.\n\n```bibtex\n{bibtex}\n```\n")
    return with_meta('citation', 'Citation', about, text)

def sphinx(source, dest, doctrees):
    "Run Sphinx; warnings are errors, and so are references to what is not there (`-n`)"
    from sphinx.cmd.build import main
    args = ['-q', '-W', '--keep-going', '-n', '-c', root/'docs', '-d', doctrees, '-E', source, dest]
    if rc := main(list(map(str, args))): sys.exit(rc)

def build():
    "The site"
    import nbformat
    mathjax()
    for d in (proc, cache/'html'): shutil.rmtree(d, ignore_errors=True)
    shutil.copytree(nbs, proc, ignore=shutil.ignore_patterns('*.ipynb', '*.py', '.*', '_*'))   # images
    sections, plain = ordered(notebooks()), {}
    for name in sum(sections.values(), []):
        nb = processed(name)
        title = nb.cells[0].source.lstrip('# ')
        plain[name] = markdown(nbformat.from_dict(nb), name)
        (proc/f'{name}.ipynb').parent.mkdir(parents=True, exist_ok=True)
        if name == 'index': nb.cells.append(markdown_cell(toctrees(sections)))
        head, *rest = nb.cells[1].source.split('\n\n', 1)
        nb.cells[1].source = '\n\n'.join([head, open_links(name), *rest])
        nb.metadata['myst'] = meta(name, title, subtitle(plain[name], name))
        nbformat.write(page(nb, name), proc/f'{name}.ipynb')
    (proc/'changelog.md').write_text(changelog(), encoding='utf-8')
    (proc/'citation.md').write_text(citation(), encoding='utf-8')
    sphinx(proc, cache/'html', cache/'doctrees')
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(cache/'html', out)
    for name,md in plain.items():
        (out/f'{name}.html.md').write_text(md, encoding='utf-8')   # nbdev's module docstrings lead here
    (out/'llms.txt').write_text(llms(sections, plain), encoding='utf-8')

def toctrees(sections):
    def tree(caption, pages):
        caption = [f':caption: {caption}'] if caption else []
        return '\n'.join(['```{toctree}', ':hidden:', *caption, '', *pages, '```'])
    sections = {**sections, 'Project': [*sections.get('Project', []), 'changelog', 'citation']}
    return '\n\n'.join(tree(k, v) for k,v in sections.items() if k and v)

def test():
    "Open every page of the built site in a browser"
    if not (out/'index.html').exists(): sys.exit('docs/build.py: there is no site to test: build it first')
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser: sys.exit(f"docs/build.py: no browser to test with. One of {', '.join(BROWSERS)} "
                             "must be in the PATH (Debian: apt-get install chromium)")
    if not shutil.which('node'): sys.exit('docs/build.py: testing needs Node.js')
    opts = dict(site=out, root=root, url=site, repo=cfg.git_url, browser=browser,
                playwright=npm('playwright-core')/'index.js', axe=npm('axe-core')/'axe.min.js')
    cmd = ['node', root/'docs/browser_test.mjs', json.dumps({k:str(v) for k,v in opts.items()})]
    sys.exit(subprocess.run(cmd).returncode)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description='Build the documentation site, _docs/index.html, or README.md')
    g = p.add_mutually_exclusive_group()
    g.add_argument('--readme', action='store_true', help='write README.md and its figures')
    g.add_argument('--check-readme', action='store_true', help='fail if README.md is out of step with nbs/index.ipynb')
    g.add_argument('--test', action='store_true', help='open every page of the built site in a browser')
    args, start = p.parse_args(), time.time()
    os.chdir(root)
    if args.check_readme: check_readme()
    elif args.readme: write_readme()
    elif args.test: test()
    else:
        build()
        print(f"{(out/'index.html').relative_to(root)} in {time.time()-start:.0f} s")
