"""Build the documentation site, `python docs/build.py`, or README.md, `--readme`; or open each page in a browser, `--test`; from anywhere.

    nbs/index.ipynb --nbdev--> `markdown` --nbconvert--> README.md
    nbs/**/*.ipynb  --nbdev--> `page` --> _proc/*.ipynb --Sphinx, myst-nb, furo--> _docs/*.html

nbdev applies the `#|` directives, runs `show_doc` for each exported definition and links backticked symbols, as on every nbdev site.
Nothing is executed but imports and exported cells; outputs are the stored ones. This file says the result in Sphinx's words: a symbol's
documentation becomes a `py:` directive (`Symbol`) and a link to this site a checked reference (`links`), so that the build fails on a
symbol, page or heading that is not there. Sphinx's own settings are in `conf.py`.
"""
import argparse, ast, base64, difflib, hashlib, inspect, json, os, re, shutil, subprocess, sys, tarfile, time
from fnmatch import fnmatch
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

from fastcore.docments import ShowDocRenderer, docments
from fastcore.nbio import mk_cell, nb2str, read_nb
from nbdev import showdoc
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.processors import FilterDefaults

# The order of the pages; the changelog follows. Each pattern takes the notebooks that none before it took; one that none takes is an error.
tutorials = lambda s: [f'tutorials/{o}' for o in s.split()]
PAGES = {'': ['index'],
         'Learn': tutorials('understanding*'),
         'How to': tutorials('find_the_lr train balance watch_curvature compare_fairly scale_up'),
         'Reference': ('fit cycle schedule range_test curvature_lr curvature regularization balance compare data models recipes checkpoint cli '
                       'dropout snapshots gradients runs state metrics optim loaders events show core').split(),
         'Evidence': tutorials('evidence comparison_study claims_study balance_study estimator_study figure5_study works_with fastai_traps'),
         'Project': tutorials('against_the_others contributing'),
         'More': ['tutorials/*']}
NPM = {'mathjax':    ('3.2.2', 'Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw=='),   # version, npm's sha512
       'playwright-core': ('1.65.1', 'hqPpz7blSMPxWVdoeE1yiBSzXsKiVOd2k+kjCvmUywD2GPO2Dd9HfcWnq9NN0GHbNZDFgZ9JfBFr+X5/BLo0qw==')}
LLMS = ('fastai learners trained with one cycle of very large learning rates. `from superconv_fastai.all import *` has every public name. Its faces: '
        '`learn.lr_range_test`, `learn.fit_superconv`, `learn.regularizers`, `learn.balance_regularization`, `learn.curvature_lr_find`, `compare_fits`.')
BROWSERS = 'chromium chromium-browser google-chrome google-chrome-stable'.split()

root = Path(__file__).resolve().parent.parent
cfg = get_config(root)
nbs, proc, out, cache, figures = cfg.nbs_path, root/'_proc', cfg.doc_path, root/'build', root/'docs/_static/readme'
site, blob = cfg.doc_url.rstrip('/') + '/', f'{cfg.git_url}/blob/{cfg.branch}/'

def ordered(names, sections=PAGES):
    "`names` of notebooks (no suffix, relative to nbs) by section"
    left, res = sorted(names), {}
    for section,pats in sections.items():
        res[section] = list(dict.fromkeys(o for p in pats for o in left if fnmatch(o, p)))
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

class Symbol(ShowDocRenderer):
    "Renders a symbol, and the documented public members of a class, as directives of Sphinx's Python domain"
    explicit = ()  # names that have a show_doc of their own
    def __init__(self, sym, name=None, title_level=3):
        self.kind = ('class' if inspect.isclass(sym) else type(sym).__name__ if isinstance(sym, (property,classmethod,staticmethod))
                     else 'function' if callable(sym) else 'data')
        super().__init__(getattr(sym, '__func__', sym), name=name)
        if self.kind == 'function' and '.' in self.nm: self.kind = 'method'

    def _repr_markdown_(self, colons=4):
        dm = docments(self.sym, full=True, args_kwargs=True) if callable(self.sym) else {}
        ret, method = dm.pop('return', None), self.kind in ('method','property','classmethod')
        if dm and (self.kind == 'class' or method) and next(iter(dm)) in ('self','cls'): dm.pop(next(iter(dm)))
        sig = '' if self.kind in ('property','data') or getattr(self.sym, '__init__', 0) is object.__init__ else f'({_signature(dm)})'
        parts = [f"{':'*colons}{{py:{self.kind}}} {self.nm}{sig}", self.docs]
        rows = [[_code(_stars(p)+k), _code(_type(p)), _code(_default(p)), p.docment or ''] for k,p in dm.items() if p.docment or not _stars(p)]
        if ret and self.kind not in ('class','property') and (_type(ret) or ret.docment):
            rows.append(['**Returns**', _code(_type(ret)), '', ret.docment or ''])
        if any(r[-1] for r in rows): parts.append(table(rows, ['Parameter', 'Type', 'Default', 'Details']))
        if self.kind == 'class': parts += [o._repr_markdown_(colons-1) for o in self.members()]
        return '\n\n'.join(o for o in [*parts, ':'*colons] if o)

    def __str__(self): return str(self.dm).replace('__main__.', '') + (f'\n    "{self.docs}"' if self.docs else '')
    __repr__ = __str__

    def members(self):
        for k,v in vars(self.sym).items():
            nm = f'{self.nm}.{k}'
            if k[0] == '_' or re.match('(before|after)_', k) or nm in self.explicit: continue   # fastai's events are not for calling
            if v.__doc__ and (inspect.isfunction(v) or isinstance(v, (property,classmethod,staticmethod))):   # its own, not one that it inherits
                if (o := Symbol(v, nm)).docs: yield o

# ---- from a notebook to cells for Sphinx, or for plain markdown ----

def markdown_cell(source):
    import nbformat   # not at the top: it takes seconds
    return nbformat.v4.new_markdown_cell(source)

def processed(name):
    "Notebook `name` as nbdev processes it for a site"
    import nbformat
    nb = read_nb(nbs/f'{name}.ipynb')
    first = next((c for c in nb.cells if c.cell_type == 'markdown'), None)
    if not (first and (m := re.match(r'\s*# +(.+)', first.source))): sys.exit(f'nbs/{name}.ipynb does not begin with an H1')
    nb.cells.insert(nb.cells.index(first)+1, mk_cell(first.source[m.end():].strip(), 'markdown'))
    first.source = m[0]   # nbdev turns this cell into front matter and would lose what follows the subtitle
    for c in nb.cells: # nbdev's `hide` takes the outputs too
        if re.search(r'^#\|\s*hide\s*$', c.source, re.M) and any('image/png' in o.get('data', {}) for o in c.get('outputs', [])):
            sys.exit(f'nbs/{name}.ipynb: a figure in a hidden cell is not shown, hide its code with `#| echo: false`:\n{c.source}')
    Symbol.explicit = set(re.findall(r'\bshow_doc\(\s*([\w.]+)', '\n'.join(c.source for c in nb.cells)))
    showdoc.BasicMarkdownRenderer, os.environ['IN_TEST'] = Symbol, '1'
    FilterDefaults()(nb)
    nb = nbformat.reads(nb2str(nb), 4)
    heading = m[1].strip()
    nb.cells = [markdown_cell(f'# {heading}'), *(c for c in nb.cells[1:] if c.source and 'THIS FILE WAS AUTOGENERATED' not in c.source)]
    for c in nb.cells:
        c.metadata.pop('execution', None)   # times that nbdev notes where it ran an import; nbformat wants text there
        if c.cell_type == 'markdown':
            heading = ([heading] + re.findall(r'^#+ +(.+)', c.source, re.M))[-1].replace('`', '')
            if re.search(r'^:{3,}', c.source, re.M): sys.exit(f'nbs/{name}.ipynb: Quarto blocks (:::) are not shown, use a blockquote:\n{c.source}')
        else: directives(c, name, heading)
    nb.metadata['language_info'] = dict(name='python', pygments_lexer='ipython3')
    return nb

TAGS = {'echo: false':'remove-input', 'output: false':'remove-output', 'include: false':'remove-cell', 'code-fold: true':'hide-input', 'code-fold: show':None}
def directives(c, name, heading):
    "Turn the Quarto directives that nbdev leaves in a code cell into tags, and drop the rest of the `#|` lines"
    d = dict(re.findall(r'^#\| *([\w-]+): *(.*?) *$', c.source, re.M))
    c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M).strip('\n')
    c.metadata['tags'] = [t for k,t in TAGS.items() if t and d.get(k.split(':')[0]) == k.split(': ')[1]]
    c.metadata['alt'] = d.get('fig-alt', f'Figure: {heading}').strip('"\'')
    unknown = [f'{k}: {v}' for k,v in d.items() if f'{k}: {v}' not in TAGS and k not in ('fig-alt','output','eval','code-summary')]
    if unknown: sys.exit(f"nbs/{name}.ipynb: docs/build.py does not know the directive {', '.join(unknown)}")

def _is_doc(c): return c.cell_type == 'code' and c.source.startswith('show_doc(') and 'remove-input' in c.metadata.tags
def _data(c): return [o.data for o in c.get('outputs', []) if 'data' in o]

def page(nb, name):
    "Notebook for Sphinx"
    for i,c in enumerate(nb.cells):
        if _is_doc(c): nb.cells[i] = c = markdown_cell('\n\n'.join(d['text/markdown'] for d in _data(c)))
        if c.cell_type == 'markdown': c.source = links(c.source, name)
        else: c.metadata['mystnb'] = dict(image=dict(alt=c.metadata.pop('alt')))
        for d in _data(c):
            if 'text/markdown' in d: d['text/markdown'] = links(d['text/markdown'], name)
    # nbdev's links from elsewhere name a symbol in lower case; Sphinx's anchors keep the case
    shown = {s for c in nb.cells for s in _shown(c.source)}
    for c in nb.cells:
        if c.cell_type == 'markdown':
            c.source = re.sub(_re_shown, lambda m: m[0] if m[1].lower() in shown else f'<div id="{m[1].lower()}"></div>\n\n{m[0]}', c.source)
    return nb

_re_shown = re.compile(r'^:{3,}\{py:\w+\} ([\w.]+)', re.M)
def _shown(s): return re.findall(_re_shown, s)

def markdown(nb, name, images=None):
    "Notebook as markdown that needs no Sphinx; figures go into the dict `images` as bytes by file name, or are left out when it is None"
    from nbconvert import MarkdownExporter
    for i,c in enumerate(nb.cells):
        if _is_doc(c): nb.cells[i] = c = markdown_cell('\n\n'.join(f"```python\n{d['text/plain']}\n```" for d in _data(c)))
        if c.cell_type == 'markdown': c.source = links(c.source, name, plain=True)
        for d in _data(c):
            if 'image/png' in d:
                if images is not None: images[f'figure-{len(images)+1}.png'] = base64.b64decode(d['image/png'])
                md = '' if images is None else f"![{c.metadata.alt}]({figures.relative_to(root).as_posix()}/figure-{len(images)}.png)"
            elif 'text/html' in d: md = html2md(d['text/html'])
            else: md = links(d['text/markdown'], name, plain=True) if 'text/markdown' in d else f"```text\n{d.get('text/plain', '')}\n```"
            d.clear(); d['text/markdown'] = md
    tags = dict(enabled=True, remove_cell_tags=['remove-cell'], remove_input_tags=['remove-input'], remove_all_outputs_tags=['remove-output'])
    md, _ = MarkdownExporter(config={'TagRemovePreprocessor': tags}).from_notebook_node(nb)
    return re.sub(r'\n{3,}', '\n\n', '\n'.join(l.rstrip() for l in md.splitlines())).strip() + '\n'

_re_own = re.compile(r'\[`([^`]+)`\]\(' + re.escape(site) + r'[\w./-]+\.html(?:#[\w.]*)?\)')
_re_link = re.compile(r'(!?)\[((?:!\[[^\]\n]*\]\([^)\s]*\)|`[^`\n]*`|[^\[\]`\n])*)\]\(([^)\s]+)\)')   # the text may hold an image
def links(md, name, plain=False):
    "Rewrite the links of page `name`: symbols and pages for Sphinx to check, or web addresses if `plain`; files outside of nbs in the repository"
    def own(m):
        sym = m[1].removesuffix('()')
        if sym.split('.')[-1].startswith('_'): return f'`{m[1]}`'   # nbdev links private names too; the site does not show them
        return m[0] if plain else f'{{py:obj}}`{m[1]}`' if sym == m[1] else f'{{py:obj}}`{m[1]} <{sym}>`'
    def rel(m):
        img, text, to = m.groups()
        text = f'[{_re_link.sub(rel, text)}]'
        path,_,frag = to.partition('#')
        if to.startswith(site) and not plain: full = nbs/((path[len(site):].removesuffix('.html') or 'index') + '.ipynb')
        elif re.match(r'[a-z]+:|#|$', to) or img and not plain: return f'{img}{text}({to})'
        else: full = Path(os.path.normpath(nbs/Path(name).parent/path))
        if full.is_relative_to(nbs) and not plain: path = '/' + full.relative_to(nbs).as_posix()   # from the top of Sphinx's source
        elif full.suffix == '.ipynb' and full.is_relative_to(nbs): path = site + full.relative_to(nbs).with_suffix('.html').as_posix()
        else: path = ('' if img else blob) + full.relative_to(root).as_posix()
        return f'{img}{text}({path}' + (f'#{frag})' if frag else ')')
    def text(s):
        s = re.sub(r'\[\[(`[^`]+`)\]\([^)\s]+\)\]\(', r'[\1](', s)   # a symbol that nbdev linked inside of a link
        return _re_link.sub(rel, _re_own.sub(own, s))
    return ''.join(s if i%2 else text(s) for i,s in enumerate(re.split(r'(^```.*?^```|^~~~.*?^~~~)', md, flags=re.M|re.S)))

class _Cells(HTMLParser):
    def __init__(self): super().__init__(); self.rows, self.open = [], False
    def handle_starttag(self, tag, attrs):
        if tag == 'tr': self.rows.append([])
        elif tag in ('td','th'): self.rows[-1].append(''); self.open = True
    def handle_endtag(self, tag): self.open = self.open and tag not in ('td','th')
    def handle_data(self, s):
        if self.open: self.rows[-1][-1] += s

def html2md(html):
    "A plain HTML table as a markdown table; other HTML without its style"
    html = re.sub(r'<style.*?</style>', '', html, flags=re.S).strip()
    if html.count('<table') != 1 or 'span=' in html: return html
    (p := _Cells()).feed(html)
    rows = [[c.strip() for c in r] for r in p.rows if r]
    if len(rows) < 2 or len({len(r) for r in rows}) > 1: return html
    num = [all(re.fullmatch(r'[-+\d.,e% ×x]*|nan|inf', r[i]) for r in rows[1:]) for i in range(len(rows[0]))]
    before, after = (_plain(o) for o in re.split(r'<table.*</table>', html, flags=re.S))
    return '\n\n'.join(filter(None, [before, table(rows[1:], rows[0], ['---:' if n else '---' for n in num]), after]))

def _plain(html):
    "Text of HTML without a table, its blocks as paragraphs"
    return '\n\n'.join(filter(None, (unescape(re.sub(r'<[^>]+>', '', o)).strip() for o in re.split(r'<br\s*/?>|</?(?:div|p)\b[^>]*>', html))))

# ---- what is built ----

def readme():
    "README.md and its figures: bytes by path"
    if not (nbs/'index.ipynb').exists(): sys.exit('docs/build.py: nbs/index.ipynb, the source of README.md and of the home page, is missing')
    images = {}
    md = re.sub(r'<div></div>\s*', '', markdown(processed('index'), 'index', images)) # what a progress bar leaves behind
    md = md.replace('\n\n', '\n\n<!-- Made by docs/build.py from nbs/index.ipynb: edit that -->\n\n', 1)
    return {root/'README.md': md.encode(), **{figures/k:v for k,v in images.items()}}

def write_readme():
    files = readme()
    shutil.rmtree(figures, ignore_errors=True)
    for p,b in files.items(): p.parent.mkdir(parents=True, exist_ok=True); p.write_bytes(b)

def check_readme():
    files = readme()
    old = {p:p.read_bytes() for p in [root/'README.md', *figures.glob('*')] if p.exists()}
    text = lambda d: d.get(root/'README.md', b'').decode().splitlines(keepends=True)
    bad = [p.relative_to(root).as_posix() for p in sorted({*files, *old}) if files.get(p) != old.get(p)]
    if bad: sys.exit(''.join(difflib.unified_diff(text(old), text(files), 'README.md', 'from nbs/index.ipynb')) +
                     f"\nOut of step with nbs/index.ipynb: {', '.join(bad)}. Run `python docs/build.py --readme`.")

def npm(name, wanted=lambda path: True, dest=None):
    "Package `name` from npm in `dest`, or in build/, without its dependencies; fetched once, checked, and only the files that are wanted"
    ver, sha = NPM[name]
    tgz, dest = cache/f'{name}-{ver}.tgz', dest or cache/name
    if not tgz.exists():
        if not shutil.which('npm'): sys.exit(f'docs/build.py needs npm to fetch {name}: install Node.js, or put {tgz.name} from npm into {cache}')
        cache.mkdir(exist_ok=True)
        subprocess.run(['npm', 'pack', '--silent', f'{name}@{ver}', '--pack-destination', cache], check=True, cwd=cache, stdout=subprocess.DEVNULL)
    if base64.b64encode(hashlib.sha512(tgz.read_bytes()).digest()).decode() != sha: sys.exit(f'{tgz} is not what was expected: delete it and try again')
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
    npm('mathjax', lambda p: p=='es5/tex-chtml-full.js' or p.startswith('es5/output/chtml/fonts/woff-v2/'), cache/'static/mathjax')

def llms(sections, plain):
    "llms.txt (llmstxt.org): the pages as plain markdown, a line for each. `plain` has the markdown by name"
    def line(name):
        if not (m := re.search(r'^> *(.+)', plain[name], re.M)): sys.exit(f'nbs/{name}.ipynb has no subtitle (`> ...`) below its H1')
        return f"- [{Path(name).name.replace('_', ' ')}]({site}{name}.html.md): " + _re_link.sub(r'\2', m[1]).strip()
    title = f"# {cfg.lib_name}\n\n> {line('index').split(': ', 1)[1]}\n\n{LLMS}"
    return '\n\n'.join([title, *(f"## {k or 'Start here'}\n\n" + '\n'.join(map(line, v)) for k,v in sections.items() if v)]) + '\n'

def open_links(name):
    "Where a reader can open the notebook of page `name`, in HTML. In Colab only what installs itself there"
    path = nbs/f'{name}.ipynb'
    to = {'Notebook': blob + path.relative_to(root).as_posix(), 'Markdown': f'{path.stem}.html.md'}
    if '[ -e /content ]' in path.read_text(encoding='utf-8'): to['Colab'] = to['Notebook'].replace('https://github.com', 'https://colab.research.google.com/github')
    return '<p class="open">' + ' '.join(f'<a href="{v}">{k}</a>' for k,v in to.items()) + '</p>'

def sphinx(source, dest, doctrees):
    "Run Sphinx; warnings are errors, and so are references to what is not there (`-n`)"
    from sphinx.cmd.build import main
    if rc := main(['-q', '-W', '--keep-going', '-n', '-c', str(root/'docs'), '-d', str(doctrees), '-E', str(source), str(dest)]): sys.exit(rc)

def build():
    "The site"
    import nbformat
    mathjax()
    for d in (proc, cache/'html'): shutil.rmtree(d, ignore_errors=True)
    shutil.copytree(nbs, proc, ignore=shutil.ignore_patterns('*.ipynb', '.*', '_*'))   # images
    sections, plain = ordered(notebooks()), {}
    for name in sum(sections.values(), []):
        nb = processed(name)
        plain[name] = markdown(nbformat.from_dict(nb), name)
        (proc/f'{name}.ipynb').parent.mkdir(parents=True, exist_ok=True)
        if name == 'index': nb.cells.append(markdown_cell(toctrees(sections)))
        head, *rest = nb.cells[1].source.split('\n\n', 1)
        nb.cells[1].source = '\n\n'.join([head, open_links(name), *rest])
        nbformat.write(page(nb, name), proc/f'{name}.ipynb')
    if (log := root/'CHANGELOG.md').exists():
        (proc/'changelog.md').write_text(links(NbdevLookup().linkify(log.read_text(encoding='utf-8')), '../CHANGELOG'), encoding='utf-8')
    sphinx(proc, cache/'html', cache/'doctrees')
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(cache/'html', out)
    for name,md in plain.items(): (out/f'{name}.html.md').write_text(md, encoding='utf-8')   # nbdev's module docstrings lead here
    (out/'llms.txt').write_text(llms(sections, plain), encoding='utf-8')

def toctrees(sections):
    tree = lambda caption, pages: '\n'.join(['```{toctree}', ':hidden:', *([f':caption: {caption}'] if caption else []), '', *pages, '```'])
    if (root/'CHANGELOG.md').exists(): sections = {**sections, 'Project': [*sections.get('Project', []), 'changelog']}
    return '\n\n'.join(tree(k, v) for k,v in sections.items() if k and v)

def test():
    "Open every page of the built site in a browser"
    if not (out/'index.html').exists(): sys.exit('docs/build.py: there is no site to test: build it first')
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser: sys.exit(f"docs/build.py: no browser to test with. One of {', '.join(BROWSERS)} must be in the PATH (Debian: apt-get install chromium)")
    if not shutil.which('node'): sys.exit('docs/build.py: testing needs Node.js')
    opts = dict(site=out, root=root, url=site, repo=cfg.git_url, playwright=npm('playwright-core')/'index.js', browser=browser)
    sys.exit(subprocess.run(['node', root/'docs/browser_test.mjs', json.dumps({k:str(v) for k,v in opts.items()})]).returncode)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description='Build the documentation site, _docs/index.html, or README.md')
    g = p.add_mutually_exclusive_group()
    g.add_argument('--readme', action='store_true', help='write README.md and its figures')
    g.add_argument('--check-readme', action='store_true', help='fail if README.md is out of step with nbs/index.ipynb, write nothing')
    g.add_argument('--test', action='store_true', help='open every page of the built site in a browser')
    args, start = p.parse_args(), time.time()
    os.chdir(root)
    if args.check_readme: check_readme()
    elif args.readme: write_readme()
    elif args.test: test()
    else:
        build()
        print(f"{(out/'index.html').relative_to(root)} in {time.time()-start:.0f} s")
