"""Bad input to the whole public API: refused by the check that belongs to the argument, by name, before anything
changes.

The table says what each argument may not be. Every test takes its values from there: the fixed ones by example, the
wrong types by hypothesis."""
import os, random, re
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from fastai.basics import *
from fastai.callback.all import *
from hypothesis import given, settings, strategies as st
from fingerprints import bits
from small_learners import class_learner as small, groups, make_learner, plain
import superconv_fastai
from superconv_fastai.all import *

# ---- what is wrong for which kind of argument ----

class Thing: __repr__ = lambda self: 'Thing()'
odd = st.one_of(st.text(max_size=4), st.binary(max_size=4), st.builds(Thing), st.builds(dict, a=st.just(1)),
                st.builds(set), st.complex_numbers(), st.dates(), st.just(...), st.just(NotImplemented),
                st.just(np.zeros((2, 2))), st.just(np.array(['a'])), st.just(torch.ones(2, 2)), st.just(pd.DataFrame()),
                st.just(int), st.builds(Path, st.just('x')))
not_finite = st.sampled_from([math.nan, math.inf, -math.inf, np.float32('nan'), 10**400])
lists = st.sampled_from([[], (), [1,2,3], L(1,2,3), np.ones(3), [None], ['a'], [math.nan], [[1]]])
negative = st.floats(max_value=-1e-300, allow_nan=False) | st.integers(max_value=-1)
fraction = st.floats(.001, .999).map(lambda v: v+3)
number = odd | not_finite | lists | st.booleans()
no_batches = st.sampled_from([3, .5, True, 'valid', b'', [], {}, np.zeros(2), torch.zeros(2), object, math.nan])
nothing = st.none()

def below(v): return st.floats(max_value=v, exclude_max=True, allow_nan=False) | st.integers(max_value=v-1)
def above(v): return st.floats(min_value=v, exclude_min=True, allow_nan=False) | st.integers(min_value=v+1)
count = number | below(1) | fraction # an integer >= 1
positive = number | negative | st.just(0)
share = number | negative | st.floats(min_value=1, allow_nan=False) # [0, 1)
at_least_0 = number | negative
peak = number | negative | st.floats(min_value=.9, exclude_min=True, allow_nan=False) # [0, 1-tail_pct]
# 2 groups
lr = (odd | not_finite | st.booleans() | negative | st.just(0) | st.sampled_from([[], [1,2,3,4], [None], ['a'],
    [math.nan,.1], [-1,.1], [[1]], slice(None), slice(-1,.1), slice(.1,math.nan), slice('a',.1), slice(0,1,2)]))
mom3 = odd.filter(lambda v: not isinstance(v, str)) | st.just('high') | not_finite | st.sampled_from([.9, True, (.9,.8),
    (.9,.8,1.), (.9,-.1,.9), (.9,None,.9), ['a']*3, []])
def one_of(*ok): return number | st.integers() | st.text(max_size=4).filter(lambda s: s not in ok)
budgets = (
    odd.filter(lambda v: not isinstance(v, dict))
    | not_finite
    | st.booleans()
    | below(1)
    | fraction
    | st.sampled_from([[], [1, 1], [0], ['a'], [None]])
)
flag = odd | not_finite | lists | st.integers() | st.floats()
path = st.sampled_from([3, .5, True, '', '.', '..', '/', 'no/such/folder/f', '\0', 'a\0b', 'x'*5000, [], {}, b'f',
                        Thing(), math.nan, np.zeros(2), object])
call = odd.filter(lambda v: v is not int) | not_finite | lists | st.integers() | st.booleans() # a function
seeds = odd | not_finite | st.booleans() | below(1) | st.sampled_from([[], [1,1], [-1], [2**32], [.5], ['a'], [None],
    [math.nan], [True]])
grid = odd | not_finite | st.booleans() | st.floats(0, 1) | st.sampled_from([[], [-1,1], ['a','b'], [None,1],
    [math.nan,1], [True,2.], [[1],[2]]])
base = number.filter(lambda v: not isinstance(v, str)) | st.integers()
cbs = (odd | not_finite | st.integers() | st.sampled_from([[3], ['a'], [None], [int], [Thing()]])).filter(
    lambda v: len(L(v)) > 0
)

# ---- the calls ----

def learn(): return make_learner(splitter=groups, metrics=mae, path='/tmp')
finished = None
def comparison():
    global finished
    if finished is None: finished = compare_fits(small, dict(a=plain, b=plain), 1, 2, progress=False)
    return finished

table = {  # call, with arguments that are right; what is wrong for each of them
    'one_cycle': (
        lambda l, **k: one_cycle(**{**dict(n_steps=100, lr_max=1.), **k}),
        dict(
            n_steps=count | nothing,
            div=number | below(1) | nothing,
            div_final=number | below(1) | nothing,
            tail_pct=share | nothing,
            lr_max=(odd | not_finite | negative | nothing).filter(
                lambda v: not isinstance(v, (np.ndarray, torch.Tensor))
            ),
            stepsize=number | below(1) | fraction | st.integers(51),
            policy=one_of('paper', 'authors', 'cosine') | nothing,
            pct_start=peak,
        ),
    ),
    'momentum_cycle': (
        lambda l, **k: momentum_cycle(**{**dict(n_steps=100), **k}),
        dict(n_steps=count | nothing, moms=mom3 | nothing | st.just('critical'), tail_pct=share | nothing,
             stepsize=number | below(1) | fraction, policy=one_of('paper', 'authors', 'cosine'), pct_start=peak),
    ),
    'OneCycleScheduler': (
        lambda l, **k: OneCycleScheduler(**{**dict(lr_max=.1), **k}),
        dict(div=number | below(1), div_final=number | below(1), tail_pct=share, stepsize=number | below(1) | fraction,
             moms=mom3, policy=one_of('paper', 'authors', 'cosine')),
    ),
    'plan_steps': (lambda l, **k: plan_steps(l.dls.train, **{**dict(n_epoch=2), **k}),
                   dict(n_epoch=count | nothing, n_acc=count)),
    'fit_superconv': (
        lambda l, **k: l.fit_superconv(**{**dict(n_epoch=2), **k}),
        dict(n_epoch=count | nothing, lr_max=lr, div=number | below(1) | nothing, div_final=number | below(1) | nothing,
             tail_pct=share | nothing, stepsize=number | below(1) | fraction | st.integers(11), moms=mom3,
             wd=odd | not_finite | st.booleans() | negative | st.sampled_from([[], [1, 2, 3], ['a']]),
             policy=one_of('paper', 'authors', 'cosine') | nothing, cbs=cbs, reset_opt=flag | nothing,
             start_epoch=number | below(0) | above(2) | nothing, resume=path, pct_start=peak),
    ),
    'plot_superconv': (
        lambda l, **k: l.plot_superconv(**{**dict(n_epoch=2), **k}),
        dict(n_epoch=count | nothing, lr_max=lr, div=number | below(1), div_final=number | below(1), tail_pct=share,
             stepsize=number | below(1) | fraction, moms=mom3, policy=one_of('paper', 'authors', 'cosine'), cbs=cbs,
             pct_start=peak),
    ),
    'SuperconvCheckpoint': (lambda l, **k: SuperconvCheckpoint(**k), dict(path=path | nothing)),
    'lr_range_test': (
        lambda l, **k: l.lr_range_test(**k),
        dict(lr_max=positive, lr_min=at_least_0 | nothing, valid=no_batches, n_steps=count, n_evals=count,
             n_valid=count, mom=share, wd=at_least_0, bn_stats=one_of('running', 'batch') | nothing,
             metric=odd.filter(lambda v: v is not int) | st.integers() | st.booleans(), stop_div=flag | nothing,
             lower_is_better=flag, state_file=path),
    ),
    'verdict': (
        lambda l, **k: verdict(**{**dict(lrs=[0, .1, .2, .3], scores=[0, .5, .6, .7]), **k}),
        dict(
            lrs=odd
            | nothing
            | st.sampled_from(
                [[0, .1], [0, .1, .1, .2], [-1, 0, 1, 2], [0, 1, 2, math.nan], [[0, 1, 2, 3]], ['a'] * 4]
            ),
            scores=odd | nothing | st.sampled_from([[1], 3, [[1] * 4], ['a'] * 4]),
            losses=odd | st.sampled_from([[1], 3, [[1] * 4]]),
            lower_is_better=flag | nothing,
            noise=at_least_0 | nothing,
            constant=number,
        ),
    ),
    'hessian_free_lr': (lambda l, **k: hessian_free_lr(**{**dict(theta0=1., theta1=2., theta2=4., lr=.1), **k}),
                        dict(lr=odd | not_finite | negative | st.just(0) | nothing, norm=one_of('l1', 'l2') | nothing)),
    'noise_floor': (lambda l, **k: noise_floor(**{**dict(lr=.1), **k}),
                    dict(lr=positive | nothing, mom=share | nothing, nesterov=flag | nothing)),
    'HessianFreeLR': (
        lambda l, **k: HessianFreeLR(**k),
        dict(mode=one_of('paper', 'secant', 'probe') | nothing, every=count,
             alpha=number | negative | st.just(0) | above(1) | nothing, n_coords=count, by_layer=flag | nothing,
             params=one_of('trainable', 'all') | nothing, smoothing=one_of('sums', 'ratios') | nothing,
             metric=flag | nothing),
    ),
    'curvature_lr': (
        lambda l, **k: l.curvature_lr(**k),
        dict(n_batches=number | below(2) | fraction | nothing,
             rel_step=number | negative | st.just(0) | above(1) | nothing),
    ),
    'curvature_lr_find': (
        lambda l, **k: l.curvature_lr_find(**k),
        dict(lr_min=positive | nothing, lr_max=positive | nothing, n_steps=number | below(10) | fraction | nothing,
             every=count, alpha=number | negative | st.just(0) | above(1) | nothing, valid=no_batches),
    ),
    'regularizers': (lambda l, **k: l.regularizers(**k), dict(lr_max=lr)),
    'reduced_regularization': (
        lambda l, **k: l.reduced_regularization(**k).__enter__(),
        dict(wd=odd | not_finite | st.booleans() | negative | st.sampled_from([[], [1, 2, 3], ['a']]),
             dropout=number | negative | above(0)),
    ),
    'balance_regularization': (
        lambda l, **k: l.balance_regularization(**{**dict(lr_max=.1), **k}),
        dict(lr_max=lr | nothing, n_epoch=count | nothing, wds=grid, dropouts=grid,
             seeds=number | below(2) | fraction | nothing, n_jobs=number | fraction | st.just(0) | nothing, path=path,
             reinit=call),
    ),
    'compare_fits': (
        lambda l, **k: compare_fits(**{**dict(make_learner=never, fits=dict(a=plain), n_epoch=1, progress=False), **k}),
        dict(make_learner=call | nothing,
             fits=odd | lists | nothing | st.sampled_from([{}, {1: plain}, {'a': 3}, {'': plain}]),
             n_epoch=budgets | st.sampled_from([{'a': 0}, {'b': 1}]) | nothing, seeds=seeds | nothing, target=number,
             n_jobs=number | fraction | st.just(0) | nothing, path=path,
             metric=odd.filter(lambda v: not isinstance(v, str)) | st.integers() | lists, measure=call,
             lower_is_better=flag, progress=flag | nothing),
    ),
    'tune_lr': (
        lambda l, **k: tune_lr(
            **{**dict(make_learner=never, fit=plain, lrs=[.1, .2, .3], n_epoch=1, progress=False), **k}
        ),
        dict(make_learner=call | nothing, fit=call | nothing, lrs=grid | st.just([.1, .2]) | nothing,
             n_epoch=budgets | nothing, seeds=seeds | nothing, n_jobs=number | fraction | st.just(0) | nothing,
             path=path, metric=odd.filter(lambda v: not isinstance(v, str)) | st.integers() | lists,
             extend=number | negative | nothing, lower_is_better=flag, progress=flag | nothing),
    ),
    'Comparison.load': (lambda l, **k: Comparison.load(**k), dict(path=path | nothing)),
    'Comparison.save': (lambda l, **k: comparison().save(**k), dict(path=path | nothing)),
    'Comparison.table': (lambda l, **k: comparison().table(**k),
                         dict(baseline=base | st.sampled_from(['c', ('a',), ('a', 2), ('c', 1)]))),
    'Comparison.steps_to': (lambda l, **k: comparison().steps_to(**k), dict(target=number | nothing)),
    'Comparison.speedup': (lambda l, **k: comparison().speedup(**{**dict(target=.5), **k}),
                           dict(baseline=base | st.sampled_from(['c', ('a', 2)]), target=number | nothing)),
    'Comparison.plot': (lambda l, **k: comparison().plot(**k), dict(n_epoch=odd | not_finite | st.integers(2))),
    'fit_multistep': (
        lambda l, **k: fit_multistep(l, **{**dict(n_epoch=1), **k}),
        dict(n_epoch=count | nothing, lr=lr, at=odd | not_finite | st.sampled_from([2., [.5, 2.], ['a'], [None]]),
             by=positive | nothing),
    ),
    'fit_linear': (lambda l, **k: fit_linear(l, **{**dict(n_epoch=1), **k}), dict(n_epoch=count | nothing, lr=lr)),
    'digits': (lambda l, **k: digits(**k), dict(split=one_of('train', 'tune', 'test') | nothing)),
}
def never(seed): raise AssertionError('a learner was made before the arguments were checked')

package = Path(superconv_fastai.__file__).parent

def look(l):
    return (bits(l.model.state_dict()), sorted(vars(l)), l.opt, list(l.cbs), l.wd, bits(torch.get_rng_state()),
            random.getstate(), [dl.rng.getstate() for dl in l.dls.loaders])

def refuses(l, name, arg, value):
    "The call ends in our own check of this argument, and nothing has changed"
    before,files = look(l),sorted(os.listdir())
    with pytest.raises((ValueError,TypeError)) as e: table[name][0](l, **{arg:value})
    last = Path(e.traceback[-1].path)
    assert last.parent==package, f'{last} raised it: {e.value}'
    assert re.match(rf"^{arg}\b.*=|^.*\b{arg}\b", str(e.value), re.S), f'{arg} is not named: {e.value}'
    after = look(l)
    assert before[0]==after[0] and before[1:]==after[1:] and sorted(os.listdir())==files

arguments = [(name,arg) for name,(_,args) in table.items() for arg in args]

@pytest.fixture(scope='module')
def shared(): return learn()

@pytest.mark.parametrize('name,arg', arguments, ids=lambda v: v)
def test_wrong_types_and_values(name, arg, shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if 'Comparison' in name: comparison()
    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(table[name][1][arg])
    def check(value): refuses(shared, name, arg, value)
    check()

def test_the_table_is_complete():
    "Every parameter of every public function and Learner method of these modules is in the table, or here"
    from inspect import signature, isfunction
    modules = [f'superconv_fastai.{m}' for m in ('schedule','loaders','fit','range_test','curvature','curvature_lr',
                                                 'regularization','balance','compare')]
    # data of any kind, figures, names, switches of a formula
    free = {'self','learn','dl','theta0','theta1','theta2','ax','show_plot','name','nesterov'}
    formulas = {'decay_rate'}
    own = {n:o for n,o in {**vars(Learner), **globals()}.items() if getattr(o, '__module__', '') in modules
           and isfunction(o) and n[0]!='_' and n not in formulas}
    missing = [(n,p) for n,o in own.items() for p in signature(o).parameters if p not in free
               and p not in table.get(n, (0,{}))[1] and (n,p)!=('verdict','lower_is_better')]
    assert len(own) > 12 and not missing, missing

# ---- by example ----

examples = [  # call, argument, value, what it may be
    ('one_cycle', 'n_steps', 0, 'an integer >= 1'),
    ('one_cycle', 'div', .5, 'a finite number >= 1'),
    ('momentum_cycle', 'moms', (.9, .8), 'three numbers in [0, 1)'),
    ('OneCycleScheduler', 'policy', 'linear', "one of 'paper', 'authors', 'cosine'"),
    ('plan_steps', 'n_epoch', '2', 'an integer >= 1'),
    ('plan_steps', 'n_acc', -1, 'None or an integer >= 1'),
    ('fit_superconv', 'n_epoch', 2.5, 'an integer >= 1'),
    ('fit_superconv', 'lr_max', [.1, .2, .3], 'one for each of the 2 parameter groups'),
    ('fit_superconv', 'lr_max', {}, 'a finite number > 0'),
    ('fit_superconv', 'wd', -1, 'a finite number >= 0'),
    ('fit_superconv', 'cbs', 'SaveModel', 'a callback or a list of callbacks'),
    ('fit_superconv', 'reset_opt', 'no', 'True or False'),
    ('fit_superconv', 'start_epoch', 3, 'an integer in [0, n_epoch], and n_epoch=2'),
    ('fit_superconv', 'resume', 'no/folder/ck', 'a file, new or not, in a folder that exists'),
    ('fit_superconv', 'moms', 'high', "three numbers in [0, 1), or 'critical'"),
    ('fit_superconv', 'stepsize', 11, '2*stepsize <= n_steps, and n_steps=20'),
    ('plot_superconv', 'cbs', [3], 'a list of callbacks'),
    ('plot_superconv', 'tail_pct', 1, 'in [0, 1)'),
    ('SuperconvCheckpoint', 'path', None, 'in a folder that exists'),
    ('SuperconvCheckpoint', 'path', 'x' * 5000, 'in a folder that exists'),
    ('lr_range_test', 'lr_max', math.nan, 'a finite number > lr_min'),
    ('lr_range_test', 'n_valid', .5, 'None or an integer >= 1'),
    ('lr_range_test', 'metric', 'f1', "one of 'mae', 'loss'"),
    ('lr_range_test', 'state_file', '/', 'a file that does not exist yet'),
    ('verdict', 'lrs', [0, .1, .1, .2], 'finite, >= 0, and rising'),
    ('verdict', 'noise', -1, 'a finite number >= 0'),
    ('hessian_free_lr', 'lr', 0, 'a number > 0'),
    ('hessian_free_lr', 'norm', 'l3', "one of 'l1', 'l2'"),
    ('noise_floor', 'mom', 1, 'in [0, 1)'),
    ('HessianFreeLR', 'mode', 'fast', "one of 'paper', 'secant', 'probe'"),
    ('HessianFreeLR', 'alpha', 2, 'in (0, 1]'),
    ('HessianFreeLR', 'metric', 1, 'True or False'),
    ('curvature_lr', 'n_batches', 1, 'an integer >= 2'),
    ('curvature_lr', 'rel_step', 0, 'in (0, 1)'),
    ('curvature_lr_find', 'n_steps', 5, 'an integer >= 10'),
    ('curvature_lr_find', 'lr_max', 1e-9, 'a finite number > lr_min'),
    ('regularizers', 'lr_max', -1, 'a finite number > 0'),
    ('reduced_regularization', 'dropout', 2, 'None: the model has no dropout'),
    ('reduced_regularization', 'wd', 'a', 'a finite number >= 0'),
    ('balance_regularization', 'seeds', 1, 'an integer >= 2'),
    ('balance_regularization', 'wds', [.1], 'at least two weight decays'),
    ('balance_regularization', 'wds', [.1, None], 'a list of finite numbers >= 0'),
    ('balance_regularization', 'reinit', 3, 'a function of the model'),
    ('balance_regularization', 'n_jobs', 0, 'an integer >= 1'),
    ('balance_regularization', 'path', 3, 'None or a file'),
    ('compare_fits', 'make_learner', 3, 'a function of the seed'),
    ('compare_fits', 'fits', {'a': 3}, 'a dict from names to callables'),
    ('compare_fits', 'n_epoch', {'b': 1}, "the fits are 'a'"),
    ('compare_fits', 'seeds', [1, 1], 'different integers'),
    ('compare_fits', 'target', 'high', 'None or a finite number'),
    ('compare_fits', 'metric', 3, "None, the name of a metric"),
    ('compare_fits', 'measure', 3, 'None or a callable'),
    ('compare_fits', 'progress', 'no', 'True or False'),
    ('compare_fits', 'path', '\0', 'None or a file'),
    ('tune_lr', 'fit', 'fit', 'a callable (learn, n_epoch, lr)'),
    ('tune_lr', 'lrs', [.1, .2], 'at least three different LRs'),
    ('tune_lr', 'extend', -1, 'an integer >= 0'),
    ('Comparison.load', 'path', 'x' * 5000, 'the log of a comparison'),
    ('Comparison.save', 'path', 'no/folder/c', 'a file in a folder that exists'),
    ('Comparison.table', 'baseline', 'c', "one of 'a', 'b'"),
    ('Comparison.steps_to', 'target', None, 'the score to reach'),
    ('Comparison.plot', 'n_epoch', 7, 'None or one of [1]'),
    ('fit_multistep', 'at', [2.], 'shares of the run'),
    ('fit_multistep', 'by', 0, 'a finite number > 0'),
    ('fit_linear', 'lr', 'x', 'a finite number > 0'),
    ('fit_linear', 'n_epoch', None, 'an integer >= 1'),
    ('digits', 'split', 'valid', "one of 'train', 'tune', 'test'"),
]

@pytest.mark.parametrize('name,arg,value,allowed', examples, ids=lambda v: repr(v)[:20])
def test_message_names_argument_value_and_what_is_allowed(name, arg, value, allowed, shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuses(shared, name, arg, value)
    with pytest.raises(ValueError) as e: table[name][0](shared, **{arg:value})
    text = str(e.value)
    # of a list perhaps the value that is wrong
    shown = value if text.startswith(f'{arg}={value!r}') else next(v for v in value if text.startswith(f'{arg}={v!r}'))
    assert text.startswith(f'{arg}={shown!r} is not allowed: it must be') and allowed in text
