"""CIFAR-10 whole at 32x32 on a CPU: schedules at equal budgets, each with its own tuned LR, paired by seed.

    SUPERCONV_DATA=/path/to/data python benchmarks/cifar_whole.py [--quick]

All 50,000 images (45,000 while the LR is tuned on the other 5,000), cropped and mirrored, batches of 128, a ResNet-8
of 78,000 parameters, SGD, fastai's decoupled weight decay of 0.01. At 8 epochs one cycle, `fit_one_cycle`, a linear
decay to zero and multistep, three LRs each, five seeds on the 10,000 test images (two of them were added when the
first three were known); at 24 epochs the cycle and multistep with the LRs of 8 epochs, one seed. About two and a half
hours on one core.

Each finished run is a line of results/cifar_whole_*.jsonl, so an interrupted study goes on where it stopped;
results/cifar_whole.json has them all.
"""
import argparse
from small import *

lrs,seeds = [.1,.3,1.],5
whole_arms = {k:arms[k] for k in ('fit_superconv','fit_one_cycle','linear to zero','multistep')}
long_arms = 'fit_superconv','multistep'

def whole_learner(valid, seed, n_train=None, n_valid=None):
    n_valid = n_valid or (5000 if valid=='tune' else None)
    dls = image_dls('cifar10', 128, n_train, n_valid, valid, 'crop+mirror', device='cpu')
    return resnet8_learner(dls, 3, sgd, .01, 16)

def at_lr(fit, lr, learn, n_epoch): fit(learn, n_epoch, lr)

def study(learner, short, long, log=True, **settings):
    "The comparison at the short budget with its searches, and the one at the long budget"
    short_res,tuned = tuned_comparison('cifar_whole', learner, whole_arms, [short], log=log, **settings)
    fits = {k: partial(at_lr, whole_arms[k], tuned[k].lrs[short]) for k in long_arms}
    path = results/'cifar_whole_long.jsonl' if log else None
    long_res = compare_fits(partial(learner, 'test'), fits, long, 1, path=path, metric='accuracy', progress=False)
    return short_res,long_res,tuned

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--quick', action='store_true', help='one and two epochs of 500 images, two seeds, no files')
    a = ap.parse_args()
    quiet_start()
    results.mkdir(exist_ok=True)
    few = partial(whole_learner, n_train=500, n_valid=500)
    if a.quick: return study(few, 1, 2, False, lrs=lrs, seeds=2, tune_seeds=1)
    short,long,tuned = study(whole_learner, 8, 24, lrs=lrs, seeds=seeds, tune_seeds=1)
    save_results('cifar_whole', dict(budgets=[8,24], lrs=lrs, seeds=seeds, tuned=pack_tuned(tuned), columns=columns,
                                     runs=[*pack(short), *pack(long)]))

if __name__=='__main__': main()
