"""Figure 1a of the super-convergence paper, at the size that fits a core: one cycle to LR 3 against multistep training
eight times as long.

    SUPERCONV_DATA=/path/to/data python benchmarks/fig1a.py [--quick | --full]

The paper's settings, scaled: LR 0.1 to 3 to 0.1 with nothing after it, momentum 0.9, coupled weight decay 1e-4 on all
parameters, mirrored images; multistep at 0.35 falls to a tenth after 5/8 and 7/8 of the run (50,000 and 70,000 of
80,000 steps). Beside it multistep with an LR that was tuned on other held-out images, as long and eight times as
long, and the cycle with a tuned LR. CIFAR-10, 10,000 images at 16x16, ResNet-8 of 20,000 parameters, batches of 128,
8 and 64 epochs (624 and 4,992 steps), half an hour on one core. `--full` is the paper's own size (ResNet-56, 50,000
images, batches of 1,000, 10,000 and 80,000 steps), for a GPU.

Each finished run is a line in results/fig1a_*.jsonl; results/fig1a.json has them all.
"""
import argparse
from small import *

def paper_cycle(learn, n_epoch, lr=3.): learn.fit_superconv(n_epoch, lr, div=30., tail_pct=0., moms=(.9,.9,.9))
def paper_multistep(learn, n_epoch, lr=.35): fit_multistep(learn, n_epoch, lr, at=(5/8,7/8))

def study(name, learner, short, seeds, tune_seeds, lrs, log=True):
    "Five arms: the paper's two, and tuned ones"
    def how(kind): return dict(path=results/f'{name}_{kind}.jsonl' if log else None, metric='accuracy', progress=False)
    tune = partial(tune_lr, partial(learner, 'tune'), seeds=tune_seeds, **how('tune'))
    both = [short,8*short]
    tuned = {'cycle, tuned LR': tune(paper_cycle, lrs, short), 'multistep, tuned LR': tune(paper_multistep, lrs, both)}
    print(tuned, flush=True)
    fits = {'cycle to 3': paper_cycle, 'multistep at 0.35': paper_multistep, **tuned}
    budgets = {k: short if k.startswith('cycle') else both for k in fits}
    res = compare_fits(partial(learner, 'test'), fits, budgets, seeds, **how('runs'))
    print(res, flush=True)
    return res,tuned

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--quick', action='store_true', help='one and eight epochs of 500 images, two seeds, no files')
    ap.add_argument('--full', action='store_true', help="the paper's size")
    a = ap.parse_args()
    quiet_start()
    results.mkdir(exist_ok=True)
    if a.quick: return study('quick', partial(paper_learner, n_train=500), 1, 2, 1, [.1,.3,1.], log=False)
    args = dict(short=200 if a.full else 8, seeds=3 if a.full else 4, tune_seeds=1, lrs=[.1,.35,1.])
    name,learner = ('fig1a_full',full_paper_learner) if a.full else ('fig1a',paper_learner)
    res,tuned = study(name, learner, **args)
    save_results(name, dict(**args, tuned=pack_tuned(tuned), columns=columns, runs=pack(res)))

if __name__=='__main__': main()
