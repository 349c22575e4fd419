"""How far from the best LR does a user end who tunes nothing?

    python benchmarks/zero_tuning.py development|confirmation     trains every arm of every cell with paired seeds
    python benchmarks/zero_tuning.py summary                      regrets and steps saved of the finished cells

Each run is at once a line of `results/zero_tuning_NAME.jsonl`, and a study goes on where it was stopped. Development
cells may be looked at as often as one likes; they chose the method. Confirmation cells are run once, when the method
is frozen: the log's first line names the commit whose `lr_search.py` and `superconverge.py` were used, and a log of
another method is refused. Choices see training items only; the test set is scored once, after the run. All arms of a
cell and a seed run in one process on one machine, whose kind the log names. The cells are in `zero_cells.py`.

`zero_designs.py` is about the designs that were compared before.
"""
import argparse, math, subprocess, sys, time
from importlib.util import find_spec
from fastai.basics import *
from fastai.callback.all import *
from superconv_fastai.all import *
from superconv_fastai.lr_search import SearchData
from superconv_fastai.optim import is_adaptive, next_optimizer
from superconv_fastai.runs import RunLog, read_log, seed_all
from common import machine, results
from small import quiet_start
from zero_cells import CONFIRMATION, DEVELOPMENT, NEEDS, Quiet, characters, is_sgd, usual
from zero_summary import calibrated_factor, summary
import itertools, lr_free # after the star imports
from copy import copy

HALVES = dict(development=(DEVELOPMENT, 3, 7), confirmation=(CONFIRMATION, 5, 9)) # cells, seeds, LRs of the grid
suggestions = dict(valley=valley, steep=steep, minimum=minimum, slide=slide)

# ---- a run ----

class Steps(Callback):
    "Optimizer steps of the run, restarts included. It counts in a closure, which nothing puts back"
    order = 66
    def __init__(self):
        n = itertools.count()
        self.add,self.taken = lambda: next(n),lambda: next(copy(n))
    def after_step(self): self.add()

def score(learn, test):
    "Loss and accuracy on the test set, once"
    learn.scoring = True
    loss,*metrics = map(float, learn.validate(dl=test(learn)))
    del learn.scoring
    return dict(loss=loss if math.isfinite(loss) else None, accuracy=metrics[0] if metrics else None)

def trained(make, seed, fit):
    "A run: what `fit(learn)` returns, the scores, seconds, steps"
    learn,test = make(seed)
    seed_all(seed, learn.dls)
    steps = Steps()
    learn.add_cb(steps)
    start = time.perf_counter()
    try: told = fit(learn) or {}
    except Diverged as e: told = dict(failed=str(e)[:200])
    seconds = time.perf_counter()-start
    return dict(**score(learn, test), steps=steps.taken(), seconds=round(seconds, 2), **told)

def cycle(lr, n_epoch): return lambda learn: learn.fit_one_cycle(n_epoch, lr)
def superconv(lr, n_epoch): return lambda learn: learn.fit_superconv(n_epoch, lr)
def rival(name, n_epoch): return lambda learn: lr_free.train(name, learn, n_epoch)
def attempted(make, seed, fit):
    "A run by somebody else's optimizer, or why it cannot train this network (DoG wants a gradient for each weight)"
    try: return trained(make, seed, fit)
    except Exception as e: return dict(failed=f'{type(e).__name__}: {e}'[:200])

def converge(n_epoch, **kwargs):
    def fit(learn):
        r = learn.superconverge(n_epoch, **kwargs)
        return dict(lr=r.lr_max, search=round(r.search_steps, 1), search_seconds=round(r.search_seconds, 2),
                    run_seconds=round(r.phases[-1].seconds, 2), restarts=len(r.restarts))
    return fit

# ---- what finders choose, on training items alone ----

def suggested(make, seed, f):
    "What `lr_find` suggests by this function; `None` when it has no answer"
    learn,_ = make(seed)
    seed_all(seed, learn.dls)
    try: return float(learn.lr_find(suggest_funcs=f, show_plot=False)[0])
    except Exception: return None

def choices(make, seed):
    "What fastai's `lr_find` and this package's two finders choose"
    lrs = {name:suggested(make, seed, f) for name,f in suggestions.items()}
    learn,_ = make(seed)
    seed_all(seed, learn.dls)
    lrs['probe'] = learn.curvature_lr_find().lr
    learn,_ = make(seed)
    learn.remove_cb(Quiet)
    learn.dls = SearchData(learn).loaders(len(learn.dls.train)) # validates on items that it does not train on
    seed_all(seed, learn.dls)
    highest = .1 if is_adaptive(next_optimizer(learn)[0]) else 3.
    lrs['range test'] = learn.lr_range_test(highest, show_plot=False).lr_max
    return lrs

# ---- arms ----

def grid(cell, n):
    "Half-decades around the LR that is usual for the optimizer"
    return [float(f'{usual(cell)*10**(k/2):.3g}') for k in range(1-n//2, n+1-n//2)]

def rank(run):
    "Better is less: accuracy first, then the loss"
    return -(run['accuracy'] or 0.),ifnone(run['loss'], math.inf)

def oracle_arms(cell, make, n_epoch, seed, n_grid, done):
    "`fit_one_cycle` over a grid that goes on until its best is inside, then `fit_superconv` around that"
    def name(lr): return f'fit_one_cycle {lr:g}'
    tried = grid(cell, n_grid)
    for lr in tried: yield name(lr), lambda lr=lr: trained(make, seed, cycle(lr, n_epoch))
    while True:
        best = min(tried, key=lambda lr: rank(done(name(lr))))
        step = {min(tried):10**-.5, max(tried):10**.5}.get(best)
        if step is None or len(tried)>n_grid+4: break
        tried.append(lr := float(f'{best*step:.3g}'))
        yield name(lr), lambda lr=lr: trained(make, seed, cycle(lr, n_epoch))
    for lr in (best*10**-.5, best, best*10**.5):
        lr = float(f'{lr:.3g}')
        yield f'fit_superconv {lr:g}', lambda lr=lr: trained(make, seed, superconv(lr, n_epoch))

def rival_arms(cell, make, n_epoch, seed, done):
    "The calibrated default and the optimizers without an LR, these also with the steps that our search had"
    lr = calibrated_factor(is_sgd(cell))*usual(cell)
    yield 'calibrated default', lambda: trained(make, seed, superconv(lr, n_epoch))
    ours = done('superconverge')
    more = math.ceil(n_epoch*(1+ours.get('search', 0.)/ours['steps'])) # whole epochs: in their favour
    for name in lr_free.ARMS:
        if name=='GeN' and 'tabular' in cell: continue # it takes networks of one input
        yield name, lambda name=name: attempted(make, seed, rival(name, n_epoch))
        yield f'{name}, equal total', lambda name=name: attempted(make, seed, rival(name, more))

def longer_arms(make, n_epoch, seed, lrs):
    "How many steps the documented workflow needs to get as far"
    for name in ('valley','steep'):
        if not lrs[name]: continue
        for k in (2,4,8): yield f'{name} x{k}', lambda lr=lrs[name],k=k: trained(make, seed, cycle(lr, k*n_epoch))

def transfer_arms(make, n_epoch, seed):
    "What most people call for a network from another task: one epoch of the head, then all"
    yield 'fine_tune', lambda: trained(make, seed, lambda learn: learn.fine_tune(n_epoch-1))
    yield 'superconverge, head first', lambda: trained(make, seed, converge(n_epoch-1, freeze_epochs=1))

def arms(cell, make, n_epoch, seed, n_grid, done, rivals):
    "`(name, function that runs it)` of each arm; those that depend on others' results ask `done`"
    yield 'untrained', lambda: trained(make, seed, lambda learn: None)
    yield 'superconverge', lambda: trained(make, seed, converge(n_epoch))
    yield 'choices', lambda: dict(lrs=choices(make, seed))
    lrs = done('choices')['lrs']
    yield 'learn.lr', lambda: trained(make, seed, cycle(1e-3, n_epoch))
    for name in suggestions:
        if lrs[name]: yield name, lambda lr=lrs[name]: trained(make, seed, cycle(lr, n_epoch))
    for name in ('probe','range test'):
        if lrs[name]: yield name, lambda lr=lrs[name]: trained(make, seed, superconv(lr, n_epoch))
    if rivals: yield from rival_arms(cell, make, n_epoch, seed, done)
    if 'transfer' in cell: yield from transfer_arms(make, n_epoch, seed)
    yield from oracle_arms(cell, make, n_epoch, seed, n_grid, done)
    if seed<3: yield from longer_arms(make, n_epoch, seed, lrs)
    yield 'end', dict

# ---- the study ----

def method():
    "The commit that the sources of the method are those of"
    files = ['superconv_fastai/lr_search.py', 'superconv_fastai/superconverge.py']
    def git(*args):
        cmd = ['git', '-C', str(results.parent.parent), *args, '--', *files]
        return subprocess.run(cmd, capture_output=True, text=True, check=True).stdout.strip()
    if git('status', '--porcelain'): sys.exit(f"commit {' and '.join(files)} first: the log names that commit")
    return git('log', '-1', '--format=%H')

def study(half, seeds, log_file):
    "All arms, seed by seed"
    quiet_start()
    cells,n_seeds,n_grid = HALVES[half]
    info = dict(machine=machine(), topics=characters()[3], seeds=n_seeds)
    path = ifnone(log_file, results/f'zero_tuning_{half}.jsonl')
    with RunLog('zero tuning', path, dict(half=half, method=method()), info) as log:
        for seed,(cell,(make,n_epoch)) in itertools.product(seeds or range(n_seeds), cells.items()):
            if cell in NEEDS and not find_spec(NEEDS[cell]):
                print(f'{cell}: left out, {NEEDS[cell]} is not installed')
                continue
            begun = time.perf_counter()
            def done(arm): return log.runs[cell,arm,seed]
            for name,run in arms(cell, make, n_epoch, seed, n_grid, done, rivals=half=='confirmation'):
                if (cell,name,seed) not in log.runs: log.add((cell,name,seed), run())
            print(f'{cell}, seed {seed}: {time.perf_counter()-begun:.0f} s', flush=True)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('what', choices=[*HALVES, 'summary'])
    p.add_argument('--seeds', type=int, nargs='+', help='only these, where several processes share the study')
    p.add_argument('--log', help='another file for the runs; results/zero_tuning_HALF_ANYTHING.jsonl is read too')
    a = p.parse_args()
    if a.what=='summary': summary()
    else: study(a.what, a.seeds, a.log)
