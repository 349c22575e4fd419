"Logs of finished runs, and what a function is: alike under every Python, and another if it does something else."
import json, shutil, subprocess, sys, types
from pathlib import Path
import pytest, torch
from fastai.basics import *
from superconv_fastai.runs import RunLog, attributes_set, describe, read_log, run_jobs
import superconv_fastai.runs as module

# ---- what a function is ----

def in_file(path, text):
    "The module that a file with this text is"
    path.write_text(text, encoding='utf-8')
    space = dict(__name__='planted', partial=partial)
    exec(compile(text, str(path), 'exec'), space)
    return types.SimpleNamespace(**space)

one = '''
lr = .1
def f(learn, n):
    x = [n for n in range(3)]
    return learn.fit(n, lr)
'''
alike = {
    'comments': one.replace('    return', '    # now\n    return').replace('range(3)]', 'range(3)] # three'),
    'blank lines': one.replace('    return', '\n\n    return'), 'spaces': one.replace('fit(n, lr)', 'fit(n,   lr)'),
    'a docstring': one.replace('    x =', '    "Trains"\n    x ='),
    'a long docstring': one.replace('    x =', '    """Trains\n\n    long"""\n    x ='),
    'indentation': one.replace('\n    ', '\n  '),
    'lines in brackets': one.replace('(n, lr)', '(\n        n,\n        lr)'),
    'what stands before': '# a\nimport os\n'+one, 'a global that it does not read': one+'other = 3\n'}
other = {
    'a constant': one.replace('range(3)', 'range(4)'),
    'a name': one.replace('learn.fit', 'learn.fit_one_cycle'),
    'a global that it reads': one.replace('.1', '.2'), 'a default': one.replace('(learn, n)', '(learn, n=2)'),
    'order': one.replace('(n, lr)', '(lr, n)'), 'a string': one.replace('(n, lr)', '(n, "lr")'),
    'its name': one.replace('def f', 'def g')+'f = g\n',
    'a parameter': one.replace('(learn, n)', '(learn, n, more=None)'),
    'a block': one.replace('    return', '    if n:\n        x = 1\n    return')}

@pytest.mark.parametrize('name', alike)
def test_what_has_no_effect_does_not_count(name, tmp_path):
    assert describe(in_file(tmp_path/'a.py', alike[name]).f) == describe(in_file(tmp_path/'b.py', one).f)

@pytest.mark.parametrize('name', other)
def test_what_has_an_effect_counts(name, tmp_path):
    assert describe(in_file(tmp_path/'a.py', other[name]).f) != describe(in_file(tmp_path/'b.py', one).f)

def test_a_value_under_a_name_that_the_function_sets_does_not_count(tmp_path):
    def differ(text):
        changed = text.replace('x = 1', 'x = 2')
        return describe(in_file(tmp_path/'a.py', text).f) != describe(in_file(tmp_path/'b.py', changed).f)
    assert not differ('x = 1\ndef f(n):\n    x = n\n    return x\n')
    assert differ('x = 1\ndef f(n):\n    global x\n    x = x+n\n')

def test_a_function_that_it_calls_counts(tmp_path):
    text = 'def g(n): return n\ndef f(n): return (lambda k: g(k))(n)\n'
    changed = text.replace('return n\n', 'return -n\n')
    assert describe(in_file(tmp_path/'a.py', text).f) != describe(in_file(tmp_path/'b.py', changed).f)

lambdas = [ # on one line, all different
    'fs = [lambda x: x+1, lambda x: x+2]', 'fs = [lambda x: x, lambda y: y, lambda: 0]',
    'fs = [lambda x: x.a, lambda x: x.b]',
    "fs = [lambda x: 'a', lambda x: 'b']", 'fs = [lambda x, k=1: x, lambda x, k=2: x]',
    'fs = (lambda k: [lambda: k, lambda: -k])(3)',
    'fs = [lambda x: (lambda y: x+y), lambda x: (lambda y: x-y)]', 'fs = [lambda x: f"{x}", lambda x: f"{x!r}"]',
    'fs = [lambda x: [i for i in x], lambda x: [i for i in x if i]]']

@pytest.mark.parametrize('text', lambdas)
def test_lambdas_on_one_line_are_told_apart(text, tmp_path):
    fs = in_file(tmp_path/'a.py', text+'\n').fs
    found = [describe(f) for f in fs]
    assert len(set(found)) == len(fs)
    apart = text.replace('[lambda', '[\n lambda').replace(', lambda', ',\n lambda')+'\n'
    assert [describe(f) for f in in_file(tmp_path/'b.py', apart).fs] == found # as when each has a line of its own

def test_closures_count():
    def outer(k):
        def inner(x): return x+k
        return inner
    assert describe(outer(1)) == describe(outer(1)) != describe(outer(2))
    def rec(n): return rec(n-1) if n else 0
    assert describe(rec) == describe(rec)

def test_wrapped_functions_count_by_what_they_wrap(tmp_path):
    text = '''
from functools import wraps
def twice(f):
    @wraps(f)
    def inner(*args): return f(*args)+f(*args)
    return inner
@twice
def f(n): return n
'''
    changed = text.replace('def f(n): return n', 'def f(n): return -n')
    assert describe(in_file(tmp_path/'a.py', text).f) != describe(in_file(tmp_path/'b.py', changed).f)

def test_functions_without_source():
    space = {}
    exec('def made(learn, n): return n\nmore = lambda x: x', space)
    assert describe(space['made'], code=False) == 'made'
    for f in (space['made'], space['more'], partial(space['made'], n=1), [space['made']]):
        with pytest.raises(ValueError, match='no source text.*do without `path`'): describe(f)
    assert describe(len) == 'len'

def test_attributes_that_a_method_sets():
    class A:
        def f(self, x):
            self.a,x.b = 1,2
            self.c += 1
            self.d.e = self.g
    assert attributes_set(A.f) == {'a','b','c','e'}

# ---- under other versions of Python ----

sample = r'''
from functools import partial
lr,name = .1,'net'
def helper(x): return x*lr
def plain(learn, n): return learn.fit(n, lr)
def doc(x, *, k=3, s='a'):
    """Long
    docstring"""
    # comment
    "another"
    if x: # so
        "and one"
        return helper(x)
    return f"{x!r:>{k}} {'a' + name} {{}}" + rf'{x}\d' + 'b' f'{s}'
def outer(k):
    def inner(x): return [i+k for i in x if (y := i)] + [name for _ in x]
    return inner
inner = outer(3)
pair = lambda x: x+1, lambda x: x+2, lambda x, k=lr: {a: x for a in k}, lambda: (yield)
async def later(x):
    async with x as y: await y
def decorated_first(x):
    @staticmethod
    def inner(): return x
    return inner
def match_it(x):
    match x:
        case {'a': b}: return b
        case [a, *rest]: return helper(a)
    try: return lr
    except (ValueError, OSError) as e: raise
class C:
    @staticmethod
    def m(self, a, /, b: int = 2, **kwargs) -> int: return super().m(a, **kwargs)
nested = (lambda f: (lambda x: f(x)))(lambda x: x+lr)
all_of_them = [plain, doc, inner, *pair, later, decorated_first, match_it, C.m, nested, partial(doc, k=4), helper]
'''

def describing_code():
    "The cells of the package that `describe` is made of, to run without its libraries"
    text = Path(module.__file__).read_text()
    cells = [c for c in text.split('# %% ../nbs/runs.ipynb #')[1:] if c.startswith('1c0b5d8')]
    imports = 'import __future__, ast, hashlib, inspect, io, tokenize\nfrom copy import copy\n'
    imports += 'from functools import lru_cache, partial\nclass L(list): pass\n'
    return imports + '\n'.join(c.partition('\n')[2] for c in cells)

script = '''
import sys
space = {}
exec(open(sys.argv[1]).read(), space)
text = open(sys.argv[2], encoding='utf-8').read()
planted = dict(__name__='planted')
exec(compile(text, sys.argv[2], 'exec'), planted)
for f in planted['all_of_them']: print(space['describe'](f))
'''

def other_python(version):
    "The interpreter of another version, or None"
    found = sorted(Path.home().glob(f'.pyenv/versions/{version}.*/bin/python')) or [shutil.which(f'python{version}')]
    try: return found[0] and subprocess.run([found[0], '-c', ''], capture_output=True).returncode==0 and found[0]
    except OSError: return None

@pytest.mark.parametrize('version', ['3.10','3.11','3.12','3.13','3.14'])
def test_other_versions_of_python_say_the_same(version, tmp_path):
    python = other_python(version)
    if not python: pytest.skip(f'no Python {version} here')
    want = [describe(f) for f in in_file(tmp_path/'sample.py', sample).all_of_them]
    (tmp_path/'describe.py').write_text(describing_code())
    args = [python, '-c', script, tmp_path/'describe.py', tmp_path/'sample.py']
    res = subprocess.run(list(map(str, args)), capture_output=True, text=True)
    assert res.stdout.splitlines() == want, res.stderr
    assert len(set(want)) == len(want)

def test_nothing_of_bytecode_counts(tmp_path):
    "Other instructions and constants for the same text"
    f = in_file(tmp_path/'a.py', one).f
    want = describe(f)
    code = f.__code__.replace(co_consts=(*f.__code__.co_consts, 'more'), co_stacksize=99)
    assert describe(types.FunctionType(code, f.__globals__)) == want and code != f.__code__

# ---- the log ----

def test_a_log_of_0_1_0_is_refused_once_and_can_be_read(tmp_path):
    path = tmp_path/'log.jsonl'
    with RunLog('search', path, of=dict(net='small')) as log: log.add(('a',0), dict(loss=.5))
    now = path.read_bytes()
    assert json.loads(now.splitlines()[0])['format'] == 2
    old = now.replace(b'"format": 2', b'"format": 1')
    path.write_bytes(old)
    said = 'begun by superconv_fastai 0.1.0.*0.1.0 can finish it.*another path, or delete'
    with pytest.raises(ValueError, match=said):
        RunLog('search', path, of=dict(net='small'))
    assert path.read_bytes() == old and read_log('search', path)[1] == {('a',0):dict(loss=.5)}
    path.write_bytes(now.replace(b'"format": 2', b'"format": 3'))
    with pytest.raises(ValueError, match='first line'): RunLog('search', path, of=dict(net='small'))

def test_a_log_goes_on_when_only_comments_changed(tmp_path):
    def log(text):
        fit = in_file(tmp_path/'fit.py', text).f
        return RunLog('search', tmp_path/'log.jsonl', of=dict(fit=describe(fit)))
    with log(one) as l: l.add(('a',0), dict(loss=.5))
    module._node.cache_clear()
    with log(alike['comments']) as l: assert len(l.runs) == 1
    with pytest.raises(ValueError, match="another's: fit is 'f#"): log(other['a constant'])

# ---- processes ----

def in_two_processes(): list(run_jobs(max, [(1,2),(3,4)], n_jobs=2))

@pytest.mark.slow
def test_processes_end_soon_after_the_last_run():
    "joblib keeps idle ones for 300 s, and a process of multiprocessing waits for its children when it ends"
    from multiprocessing import get_context
    p = get_context('spawn').Process(target=in_two_processes)
    p.start()
    p.join(120)
    assert p.exitcode==0
