"Imports, packaging, names."
import json, subprocess, sys
from configparser import ConfigParser
from importlib.metadata import metadata, requires, version
from pathlib import Path

root = Path(__file__).resolve().parents[1]

def python(code): return subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True, capture_output=True, text=True).stdout

def test_import_is_light():
    "Beyond what fastai itself imports, nothing heavy"
    heavy = 'torchvision timm sklearn.datasets accelerate dask joblib spacy'.split()
    code = f"""import sys
from fastai.basics import *
from fastai.callback.all import *
before = set(sys.modules)
from superconv_fastai.all import *
print([m for m in {heavy} if m in set(sys.modules) - before or m in sys.modules and m in ('torchvision','timm','sklearn.datasets','accelerate','dask')])"""
    assert python(code).strip() == '[]'

def test_import_patches_only_new_names():
    code = """from fastai.basics import *
from fastai.callback.all import *
before = {k:v for c in (Learner, Recorder, Callback, Optimizer) for k,v in {(c,n):o for n,o in vars(c).items()}.items()}
callbacks = list(defaults.callbacks)
from superconv_fastai.all import *
assert callbacks == list(defaults.callbacks)
assert all(vars(c)[n] is v for (c,n),v in before.items())
print(sorted({n for c in (Learner, Recorder, Callback, Optimizer) for n in vars(c) if (c,n) not in before}))"""
    assert set(eval(python(code))) >= {'fit_superconv', 'plot_superconv'}

def test_star_import_gives_the_public_names():
    code = "from superconv_fastai.all import *; print(sorted(n for n in globals() if n[0] != '_'))"
    names = eval(python(code))
    assert {'one_cycle', 'momentum_cycle', 'OneCycleScheduler', 'digits_dls'} <= set(names)
    assert not {'colors', 'values', 'real', 'refuse'} & set(names) # helpers stay inside

def test_settings_reach_the_metadata():
    cfg = ConfigParser(); cfg.read(root/'settings.ini'); cfg = cfg['DEFAULT']
    m = metadata('superconv_fastai')
    assert m['Author'] == cfg['author'] and m['Author-email'] == cfg['author_email'] or cfg['author'] in f"{m['Author']} {m['Author-email']}"
    needed = ' '.join(requires('superconv_fastai'))
    assert all(r.split('>')[0].split('=')[0] in needed for r in ' '.join(cfg[k] for k in ('requirements','test_requirements','dev_requirements')).split())
    import superconv_fastai
    assert version('superconv_fastai') == superconv_fastai.__version__

def test_changelog_has_this_version():
    import superconv_fastai
    text = (root/'CHANGELOG.md').read_text()
    assert f'## [{superconv_fastai.__version__}]' in text or '## [Unreleased]' in text

def test_command_and_module_are_the_same():
    helps = [subprocess.run(cmd, capture_output=True, text=True).stdout for cmd in ([Path(sys.executable).parent/'superconv', '-h'], [sys.executable, '-m', 'superconv_fastai', '-h'])]
    assert helps[0] == helps[1] and 'demo' in helps[0]

def test_every_notebook_has_stored_outputs_and_a_page():
    for nb in (root/'nbs').glob('*.ipynb'):
        cells = json.loads(nb.read_text())['cells']
        assert cells[0]['source'][0].startswith('# '), nb.name
        assert nb.stem == 'state' or any(c.get('outputs') for c in cells), f'{nb.name} has no stored output'

def test_results_say_what_measured_them():
    for f in (root/'benchmarks'/'results').glob('*.json'):
        r = json.loads(f.read_text())
        assert r['command'].startswith('python ') and {'cpu','cores','python','torch','fastai'} <= set(r['machine']), f.name
