"""Learning-rate schedules at equal budgets, each with its own tuned LR, paired by seed, on digits, Fashion-MNIST and
CIFAR-10.

    SUPERCONV_DATA=/path/to/data python benchmarks/schedules.py digits|fashion|cifar|cifar_full [--seeds N] [--quick]

Seven arms: `fit_superconv` in its three policies and with momentum from critical damping, `fit_one_cycle`, a linear
decay to zero, and multistep (a tenth of the LR after a half and three quarters of the run). For each task, arm and
budget the LR is tuned on held-out images that never score: the same grid (0.03 to 3, factor about 3, extended at an
edge by up to three values), the same tuning seeds, judged by accuracy like the scores. Then all arms train from the
same weights on the same batches for each of the scoring seeds.

In common: SGD, fastai's decoupled weight decay of 0.01 on weights (its default), no label smoothing. The cycles move
momentum between 0.95 and 0.85, their and fastai's default; the two without a cycle hold it at 0.9, the cycle's mean
and the papers' baseline.

Each finished run is a line in results/schedules_TASK_*.jsonl, so that an interrupted study goes on where it stopped;
results/schedules_TASK.json has them all. `cifar_full` is the whole of CIFAR-10 at 32x32 with a ResNet-20, for a GPU.
"""
import argparse
from small import *

lrs = [.03,.1,.3,1.,3.]
studies = {'digits': dict(learner=digits_learner, budgets=[5,15,45], seeds=8, tune_seeds=2),
           'fashion': dict(learner=partial(fashion_learner, width=8), budgets=[3,9], seeds=6, tune_seeds=1),
           'cifar': dict(learner=partial(cifar_learner, width=8), budgets=[2,6], seeds=6, tune_seeds=1),
           'cifar_full': dict(learner=cifar_full_learner, budgets=[5,15,45], seeds=5, tune_seeds=1)}

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('task', choices=studies)
    ap.add_argument('--seeds', type=int, help='so many of the seeds')
    ap.add_argument('--quick', action='store_true', help='one epoch, two arms, two seeds, no files: does it run?')
    a = ap.parse_args()
    quiet_start()
    results.mkdir(exist_ok=True)
    s = dict(studies[a.task])
    learner = s.pop('learner')
    if a.seeds: s['seeds'] = a.seeds
    two = {k:arms[k] for k in ('fit_superconv','multistep')}
    if a.quick: return tuned_comparison('quick', learner, two, [1], [.1,.3,1.], 2, 1, log=False)
    name = f'schedules_{a.task}'
    res,tuned = tuned_comparison(name, learner, arms, lrs=lrs, **s)
    save_results(name, dict(task=a.task, **s, lrs=lrs, tuned=pack_tuned(tuned), columns=columns, runs=pack(res)))

if __name__=='__main__': main()
