"""Cost per batch of `OneCycleScheduler` against fastai's `ParamScheduler` with cosine lr and momentum.

Both are timed in one process, alternating, with every event of a training batch dispatched through the callback and
the recording included. Then a whole training step with and without our callback. Writes results/scheduler.json.
"""
import argparse, time, warnings
from functools import partial
import numpy as np, torch
from scipy import stats
from fastai.basics import *
from fastai.callback.all import *
from fastai.test_utils import synth_learner
from superconv_fastai.all import *
from common import save_results

events = 'before_batch after_pred after_loss before_backward after_backward before_step after_step after_batch'.split()

def scheduled(make, n_batches):
    "A learner in the middle of a fit: its scheduler and what a batch calls on it"
    learn = synth_learner(n_trn=n_batches)
    with learn.no_bar(), learn.no_logging(): learn.create_opt()
    cb = make(learn)
    learn.add_cb(cb)
    learn.n_epoch,learn.epoch,learn.n_iter,learn.dl = 2,0,len(learn.dls.train),learn.dls.train
    learn.pct_train,learn.training,learn.iter = 0.,True,0
    cb('before_fit')
    cb('before_train')
    return learn,cb

def batch_cost(learn, cb, n):
    "Seconds that `n` batches' events cost"
    step = 1/(2*n)
    start = time.perf_counter()
    for i in range(n):
        learn.iter,learn.pct_train = i,i*step
        for e in events: cb(e)
    return (time.perf_counter()-start)/n

def fastai_scheduler(learn):
    lr_max = np.array([.1])
    lr = combined_cos(.25, lr_max/25, lr_max, lr_max/1e5)
    return ParamScheduler({'lr':lr, 'mom':combined_cos(.25, *learn.moms)})

def step_cost(cbs, n_batches=200):
    "Seconds per training step of a small conv net, all of fastai's loop included"
    batches = [(torch.randn(64, 1, 8, 8), torch.randint(0, 10, (64,)))]*n_batches
    dls = DataLoaders(*[DataLoader(batches, bs=None, num_workers=0) for _ in range(2)])
    def block(i, o): return nn.Conv2d(i, o, 3, padding=1),nn.BatchNorm2d(o),nn.ReLU()
    body = *block(1, 16),*block(16, 32),*block(32, 32)
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), Flatten(), nn.Linear(32, 10))
    learn = Learner(dls, model, loss_func=CrossEntropyLossFlat(), opt_func=partial(SGD, mom=.9))
    learn._do_epoch_validate = noop
    with learn.no_bar(), learn.no_logging():
        start = time.perf_counter()
        learn.fit(1, .1, cbs=cbs())
    return (time.perf_counter()-start)/n_batches

def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument('--repeats', type=int, default=40)
    ap.add_argument('--batches', type=int, default=1000)
    ap.add_argument('--steps', type=int, default=100)
    a = ap.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    us = {k:[] for k in ('ours','theirs','bare','stepped')}
    for _ in range(a.repeats):
        us['ours'].append(1e6*batch_cost(*scheduled(lambda l: OneCycleScheduler(.1), 2*a.batches), a.batches))
        us['theirs'].append(1e6*batch_cost(*scheduled(fastai_scheduler, 2*a.batches), a.batches))
        us['bare'].append(1e6*step_cost(list, a.steps))
        us['stepped'].append(1e6*step_cost(lambda: OneCycleScheduler(.1), a.steps))
    ours,theirs,bare,stepped = (np.array(us[k]) for k in ('ours','theirs','bare','stepped'))
    pct = 100*(stepped-bare)/np.median(bare) # a pair of fits, one after the other
    ci = stats.bootstrap((pct,), np.median, random_state=0).confidence_interval
    res = dict(repeats=a.repeats, one_cycle_us=np.median(ours), param_scheduler_us=np.median(theirs),
               times_cheaper=np.median(theirs/ours), step_us=np.median(bare), overhead_pct=np.median(pct),
               overhead_pct_95=[ci.low, ci.high], events_pct=100*np.median(ours)/np.median(bare))
    for k,v in res.items(): print(f'{k:>20} ', *(f'{o:.4g}' for o in np.atleast_1d(v)))
    save_results('scheduler', res)

if __name__=='__main__': main()
