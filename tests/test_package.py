"Imports, packaging, names, addresses."
from inspect import signature
import json, os, re, shutil, subprocess, sys
from configparser import ConfigParser
from email import message_from_string
from importlib.metadata import version
from pathlib import Path
import pytest, yaml

root = Path(__file__).resolve().parents[1]

def run(*cmd, **kwargs):
    res = subprocess.run([str(c) for c in cmd], capture_output=True, text=True, **kwargs)
    assert res.returncode == 0, f'{cmd}\n{res.stdout[-3000:]}\n{res.stderr[-3000:]}'
    return res.stdout

def python(code):
    return run(sys.executable, '-W', 'ignore', '-c', code)

def urls():
    tomllib = pytest.importorskip('tomllib') # from Python 3.11 on
    return tomllib.loads((root/'pyproject.toml').read_text(encoding='utf-8'))['project']['urls']

def test_import_is_light():
    "Beyond what fastai itself imports, nothing heavy"
    heavy = 'torchvision timm sklearn.datasets accelerate dask joblib spacy'.split()
    never = ('torchvision','timm','sklearn.datasets','accelerate','dask')
    code = f"""import sys
from fastai.basics import *
from fastai.callback.all import *
before = set(sys.modules)
from superconv_fastai.all import *
print([m for m in {heavy} if m in set(sys.modules) - before or m in sys.modules and m in {never}])"""
    assert python(code).strip() == '[]'

def test_import_patches_only_new_names():
    code = """from fastai.basics import *
from fastai.callback.all import *
patched = Learner, Recorder, Callback, Optimizer
before = {(c,n):o for c in patched for n,o in vars(c).items()}
callbacks = list(defaults.callbacks)
from superconv_fastai.all import *
assert callbacks == list(defaults.callbacks)
assert all(vars(c)[n] is v for (c,n),v in before.items())
print(sorted({n for c in patched for n in vars(c) if (c,n) not in before}))"""
    assert set(eval(python(code))) >= {'fit_superconv', 'plot_superconv'}

def test_star_import_gives_the_public_names():
    code = "from superconv_fastai.all import *; print(sorted(n for n in globals() if n[0] != '_'))"
    names = eval(python(code))
    assert {'one_cycle', 'momentum_cycle', 'OneCycleScheduler', 'digits_dls'} <= set(names)
    assert not {'colors', 'values', 'real', 'refuse'} & set(names) # helpers stay inside

def settings():
    cfg = ConfigParser()
    cfg.read(root/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']

def test_version():
    import superconv_fastai
    assert version('superconv_fastai') == superconv_fastai.__version__

# ---- addresses ----

def written():
    "Each file that people wrote or that is made from what they wrote, with its text"
    shown = [p for s in ('cff','md','toml','py') for p in root.glob(f'*.{s}')]
    shown += [p for p in root.glob('.github/**/*') if p.is_file()]
    for folder in ('nbs','superconv_fastai','docs','examples','benchmarks','tests'):
        shown += [p for s in ('py','ipynb','mjs','md','sh') for p in (root/folder).rglob(f'*.{s}')]
    for p in sorted(p for p in shown if '.ipynb_checkpoints' not in p.parts):
        yield p.relative_to(root).as_posix(), p.read_text(encoding='utf-8')

def test_every_address_of_the_project_is_the_one_in_pyproject():
    "Repository, Colab and site: as the test cannot ask the network, it holds all of them to one"
    u = urls()
    name = u['Repository'].removeprefix('https://github.com/')
    assert all(u[k].startswith(u['Repository'] + '/') for k in ('Issues','Changelog'))
    owner, package = name.split('/')
    hosts = r'(?:github\.com|colab\.research\.google\.com/github|raw\.githubusercontent\.com)'
    repo = re.compile(rf'{hosts}/([\w.-]+/{package})\b')
    page = re.compile(rf'https?://[\w.-]+\.(?:github|readthedocs)\.io/{package}\b[/\w]?')
    found, wrong = 0, []
    for path,text in written():
        repos, pages = repo.findall(text), page.findall(text)
        found += len(repos) + len(pages)
        wrong += [(path, o) for o in repos if o != name]
        wrong += [(path, o) for o in pages if not u['Documentation'].startswith(o)]
    assert found > 20 and not wrong

def test_nothing_says_to_install_from_an_index():
    "The package is on none: `pip install .` in a clone, or `pip install git+<address>`"
    command = re.compile(r"pip3? install (?:-{1,2}[\w-]+ )*['\"]?superconv.fastai")
    assert [(p, m[0]) for p,text in written() for m in command.finditer(text)] == []

def test_colab_cells_install_from_the_repository():
    cells = [re.findall(r'"(! \[ -e /content \][^"]*)"', text) for p,text in written() if p.startswith('nbs/tutorials')]
    cells = [c for o in cells for c in o]
    assert cells and set(cells) == {f"! [ -e /content ] && pip install -Uqq git+{urls()['Repository']}"}

def test_citation_names_this_version_and_address():
    import superconv_fastai
    c = yaml.safe_load((root/'CITATION.cff').read_text(encoding='utf-8'))
    assert (c['version'], c['license']) == (superconv_fastai.__version__, 'Apache-2.0')
    assert (c['repository-code'], c['url']) == (urls()['Repository'], urls()['Documentation'])
    assert c['authors'] == [{'name': settings()['author']}] and len(c['references']) == 2

def test_issue_forms_are_what_github_reads():
    for p in (root/'.github/ISSUE_TEMPLATE').glob('*.yml'):
        form = yaml.safe_load(p.read_text(encoding='utf-8'))
        if p.stem == 'config': assert all({'name','url','about'} == set(o) for o in form['contact_links'])
        else:
            assert form['name'] and form['description'], p.name
            assert {(o['type'], bool(o['attributes']['label'])) for o in form['body']} == {('textarea', True)}
            assert len({o['id'] for o in form['body']}) == len(form['body'])

# ---- the package as users get it ----

needed = [*'pyproject.toml settings.ini setup.py MANIFEST.in LICENSE CITATION.cff'.split(),
          *'README.md CHANGELOG.md CONTRIBUTING.md'.split()]

def source(folder):
    "The files that make the package, without what was built from them before"
    folder.mkdir()
    for f in needed: shutil.copy(root/f, folder/f)
    shutil.copytree(root/'superconv_fastai', folder/'superconv_fastai', ignore=shutil.ignore_patterns('__pycache__'))
    return folder

def readme_example():
    "The first Python code of README"
    return re.search(r'^```python\n(.*?)^```', (root/'README.md').read_text(encoding='utf-8'), re.M|re.S)[1]

where = '\nimport superconv_fastai; print("installed in", superconv_fastai.__file__)'

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "A folder with the installed wheel, and nothing else"
    pip, tmp = [sys.executable, '-m', 'pip', '-q'], tmp_path_factory.mktemp('wheel')
    run(*pip, 'wheel', '--no-deps', '--no-build-isolation', '--no-index', '-w', tmp, source(tmp/'source'))
    wheel, = tmp.glob('*.whl')
    run(*pip, 'install', '--no-deps', '--no-index', '--target', tmp/'site', wheel)
    return tmp/'site'

def test_the_wheel_holds_the_modules_and_what_describes_them(site):
    modules = lambda folder: {p.name for p in (folder/'superconv_fastai').glob('*.py')}
    assert modules(site) == modules(root)
    meta, cfg = next(site.glob('*.dist-info')), settings()
    assert (meta/'licenses'/'LICENSE').exists()
    text = (meta/'METADATA').read_text(encoding='utf-8')
    m = message_from_string(text)
    assert m.get_all('Project-URL') == [f'{k}, {v}' for k,v in urls().items()]
    assert cfg['author'] in f"{m['Author']} {m['Author-email']}"
    assert {f"Intended Audience :: {o.strip()}" for o in cfg['audience'].split(',')} < set(m.get_all('Classifier'))
    name = lambda requirement: re.match(r'[\w.-]+', requirement)[0].lower()
    wanted = ' '.join(cfg[f'{k}requirements'] for k in ('','vision_','test_','dev_')).split()
    assert {name(o) for o in wanted} == {name(o) for o in m.get_all('Requires-Dist')}
    assert '](docs/' not in text # README's figures, where README stands alone

def test_the_wheel_runs_readmes_example_and_the_command(site, tmp_path):
    env = {**os.environ, 'PYTHONPATH': str(site), 'MPLBACKEND': 'agg'}
    assert str(site) in run(sys.executable, '-W', 'ignore', '-c', readme_example() + where, cwd=tmp_path, env=env)
    assert 'demo' in run(sys.executable, site/'bin'/'superconv', '--help', cwd=tmp_path, env=env)

@pytest.mark.slow
def test_a_full_install_runs_readmes_example(tmp_path):
    "As README says: into an empty environment, everything from the index that the package itself is not on"
    run(sys.executable, '-m', 'venv', tmp_path/'venv')
    python = tmp_path/'venv'/'bin'/'python'
    run(python, '-m', 'pip', 'install', '-q', source(tmp_path/'source'))
    env = {**{k:v for k,v in os.environ.items() if k != 'PYTHONPATH'}, 'MPLBACKEND': 'agg'}
    assert str(tmp_path/'venv') in run(python, '-W', 'ignore', '-c', readme_example() + where, cwd=tmp_path, env=env)

def test_changelog_has_this_version():
    import superconv_fastai
    name = re.escape(superconv_fastai.__version__)
    text = (root/'CHANGELOG.md').read_text(encoding='utf-8')
    assert re.search(rf'^## \[{name}\] - \d{{4}}-\d\d-\d\d$', text, re.M), 'no heading with its date'
    assert re.search(rf'^\[{name}\]: https://', text, re.M), 'no link'

def test_command_and_module_are_the_same():
    commands = [Path(sys.executable).parent/'superconv'], [sys.executable, '-m', 'superconv_fastai']
    helps = [subprocess.run([*c, '-h'], capture_output=True, text=True).stdout for c in commands]
    assert helps[0] == helps[1] and 'demo' in helps[0]

called = 'fit range_test curvature_lr curvature regularization balance compare recipes schedule data models cli'.split()

def test_every_notebook_has_a_title_and_what_users_call_is_shown():
    for nb in (root/'nbs').glob('*.ipynb'):
        cells = json.loads(nb.read_text(encoding='utf-8'))['cells']
        assert cells[0]['source'][0].startswith('# '), nb.name
        assert nb.stem not in called or any(c.get('outputs') for c in cells), f'{nb.name} has no stored output'

def test_results_say_what_measured_them():
    for f in (root/'benchmarks'/'results').glob('*.json'):
        r = json.loads(f.read_text())
        machine = {'cpu','cores','python','torch','fastai'}
        assert r['command'].startswith('python ') and machine <= set(r['machine']), f.name

def test_what_is_returned_shows_itself_in_four_ways():
    "A line or a text, HTML, a table, a figure"
    from superconv_fastai import all as names
    from superconv_fastai.show import Report
    reports = [c for c in vars(names).values() if isinstance(c, type) and issubclass(c, Report)]
    assert {'Balance','Choice','Comparison','CurvatureLR','HessianFreeLR','LRProbe','RangeTest','RecipeRun','Schedule',
            'SuperconvergeReport','Tuned','Verdict'} <= {c.__name__ for c in reports}
    for c in reports:
        assert {'ax'} <= set(signature(c.plot).parameters), c
        assert callable(c.table) and callable(c._repr_html_) and '__repr__' not in vars(c), c
