"""Does cost stay linear? Time and memory of long schedules, many tensors, many runs and many recorded values, at two
sizes ten times apart.

Each measurement runs in a process of its own; time is the least of `--repeats`, memory what the process grew by at
its peak. `order` is the exponent that the two sizes give: 1 is linear. Writes results/load.json.
"""
import argparse, json, math, multiprocessing, os, resource, tempfile, time, warnings
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastai.basics import *
from fastai.callback.all import *
from fastai.test_utils import synth_learner
from superconv_fastai.all import *
from superconv_fastai.checkpoint import read_checkpoint
from superconv_fastai.snapshots import DeviceLog
from superconv_fastai.runs import RunLog
from superconv_fastai.compare import _add, _run_ok
from common import save_results

def quiet(learn):
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

# ---- a schedule of n steps ----

def schedule_values(n): return lambda: one_cycle(n, [.1,1.]).values().sum() + momentum_cycle(n).values().sum()

def scheduler_events(n, n_epoch=10):
    "What `fit_superconv` does in n batches, beside training"
    learn = quiet(synth_learner(n_trn=n//n_epoch))
    learn.create_opt()
    cb = OneCycleScheduler(.1)
    learn.add_cb(cb)
    learn.n_epoch,learn.training = n_epoch,True
    def run():
        cb('before_fit')
        for learn.epoch in range(n_epoch):
            cb('before_epoch')
            cb('before_train')
            for learn.iter in range(n//n_epoch): cb('before_batch')
        cb('after_fit')
    return run

def plan(n): return lambda: plan_steps(DataLoader(range(1001), bs=10), n, n_acc=64)

# ---- a model of n tensors ----

class Many(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.ws = nn.ParameterList([nn.Parameter(torch.randn(4)) for _ in range(n)])

    def forward(self, x): return x[:,:1]*torch.cat([*self.ws]).mean()

def many(n, **kwargs):
    learn = quiet(synth_learner(n_trn=2, n_val=1, **kwargs))
    learn.model,learn.opt_func = Many(n),partial(SGD, mom=.9)
    return learn

def on_many(f):
    "A load: `f` on a model of n tensors"
    def make(n):
        learn = many(n)
        return lambda: f(learn)
    return make

def fit(learn): learn.fit_superconv(2, .01)
def fit_paper(learn): learn.fit_superconv(2, .01, cbs=HessianFreeLR(every=1))
def fit_probe(learn): learn.fit_superconv(2, .01, cbs=HessianFreeLR('probe', every=1))
def test_range(learn): learn.lr_range_test(.01, n_steps=4, n_evals=2, show_plot=False)

def tensors_checkpoint(n):
    "One written, and read again"
    path = Path(tempfile.mkdtemp())/'ck'
    def run():
        path.unlink(missing_ok=True)
        many(n).fit_superconv(1, .01, resume=path)
        many(n).fit_superconv(1, .01, resume=path)
    return run

# ---- n runs in a comparison ----

def a_run(i):
    epochs = [[10*e, 1/e, 1/e, 1-1/(e+i%7), .1, float(e)] for e in range(1, 31)]
    return dict(fit='f', status='finished', metric='accuracy', lower_is_better=False, epochs=epochs, lrs=[.1]*200,
                weights=1., held_out='x', measured=dict(norm=float(i)), note='')

def comparison(n, arms=10): return {(f'fit {i%arms}', 30, i//arms):a_run(i) for i in range(n)}

def runs_log(n):
    "Each run written by itself, and all of them read again"
    runs,path = comparison(n),Path(tempfile.mkdtemp())/'log'
    def run():
        path.unlink(missing_ok=True)
        with RunLog('comparison', path, check=_run_ok) as log:
            for k,r in runs.items(): _add(log, k, r)
        Comparison.load(path)
    return run

def runs_answers(n):
    c = Comparison(comparison(n), .9)
    return lambda: (c.runs, c.ends, c.table(), repr(c), c._repr_html_(), c.steps_to(), c.speedup())

def runs_plot(n):
    c = Comparison(comparison(n), .9)
    return lambda: (c.plot(), plt.close('all'))

# ---- n recorded values ----

def values_estimates(n):
    "A callback's log of n numbers, and the table made of it"
    def run():
        est = HessianFreeLR('probe', every=1)
        log = DeviceLog([(0,'')])
        row = torch.tensor([[1.,2.]])
        for i in range(n//4): log.add(row, i, .1)
        est._logs.append(log)
        return est.estimates
    return run

def values_checkpoint(n):
    "The history of a training of n/4 batches (LR, loss, the cycle's two) in a checkpoint: written and read"
    path = Path(tempfile.mkdtemp())/'ck'
    learn = many(1)
    m = n//4
    class Long(Callback):
        order = 998
        def after_epoch(self):
            rec,cb = self.learn.recorder,self.learn.one_cycle_scheduler
            rec.lrs,rec.losses = [.1]*m,[torch.tensor(float(i%7)) for i in range(m)]
            cb._used = {k:[[.1] for _ in range(m)] for k in ('lr','mom')}
    def run():
        path.unlink(missing_ok=True)
        learn.fit_superconv(1, .01, cbs=Long(), resume=path)
        many(1).fit_superconv(1, .01, resume=path)
    return run

tensors = {'fit_superconv':fit, 'HessianFreeLR, paper':fit_paper, 'HessianFreeLR, probe':fit_probe,
           'lr_range_test':test_range, 'curvature_lr':lambda learn: learn.curvature_lr(2),
           'regularizers':lambda learn: learn.regularizers(lr_max=1.)}
loads = {'schedule: values': (schedule_values, 100_000, 'steps'),
         'schedule: callback': (scheduler_events, 100_000, 'steps'),
         'schedule: plan with accumulation': (plan, 10_000, 'epochs'),
         **{f'tensors: {k}': (on_many(f), 10_000, 'tensors') for k,f in tensors.items()},
         'tensors: checkpoint': (tensors_checkpoint, 10_000, 'tensors'),
         'runs: log': (runs_log, 1000, 'runs'), 'runs: tables': (runs_answers, 1000, 'runs'),
         'runs: figure': (runs_plot, 1000, 'runs'),
         'values: estimates': (values_estimates, 10_000_000, 'values'),
         'values: checkpoint': (values_checkpoint, 10_000_000, 'values')}

def memory(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024

def child(conn, make, n, repeats):
    "Measure, and send what was found"
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    run = make(n)
    before,times = memory(),[]
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter()-start)
    conn.send((min(times), memory()-before))

def measure(make, n, repeats):
    "Least time in seconds, and growth of memory at its peak in MB, in a process of its own"
    here,there = multiprocessing.Pipe()
    p = multiprocessing.get_context('fork').Process(target=child, args=(there, make, n, repeats))
    p.start()
    there.close()
    res = here.recv()
    p.join()
    return res

def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument('--repeats', type=int, default=3)
    ap.add_argument('--share', type=float, default=1., help='of the full sizes')
    ap.add_argument('--only', default='', help='loads whose names contain this')
    a = ap.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name,(make,n,unit) in loads.items():
        if a.only not in name: continue
        n = max(10, int(n*a.share))
        (t1,m1),(t2,m2) = (measure(make, k, a.repeats) for k in (n//10, n))
        order,each = math.log10(t2/t1),1e6*t2/n
        rows.append(dict(load=name, unit=unit, n=[n//10, n], seconds=[t1, t2], MB=[m1, m2], order=order, us_each=each))
        print(f'{name:36} {n:>10,} {unit:8} {t2:9.3f} s {m2:8.1f} MB', f'order {order:.2f}, {each:.2f} us each',
              sep='   ', flush=True)
    if not a.only: save_results('load', dict(repeats=a.repeats, share=a.share, rows=rows))

if __name__=='__main__': main()
