"""The papers' small studies at the size that fits a core: less data, batch size, momentum.

    SUPERCONV_DATA=/path/to/data python benchmarks/paper_studies.py data|batch|momentum [--quick]

Fashion-MNIST at 14x14, 5,000 training images (fewer in 'data'), ResNet-8 of 20,000 parameters, weight decay 0.01, five paired seeds; the LR of every arm in every
condition is tuned on held-out images that never score (grid 0.03 to 3, extended at its edges, one tuning seed, by accuracy).

data      250 to 5,000 images, a different sample with each seed, as many steps for each size: `fit_superconv` and multistep in 156 steps, and
          multistep in three times as many. (arXiv 1708.07120, figure 6a: the gain grows as the data shrinks.)
batch     batches of 32 to 512 with `fit_superconv`, in 4 epochs and in about 156 steps. (1708.07120, table 5: larger is better.)
momentum  constant 0.8 to 0.95 against cyclical momentum, falling and rising while the LR rises. (1803.09820, table 1: the best constant one
          and the falling cycle are level.)

Weight decay against lr_max is `balance.py`. Each finished run is a line in results/paper_*.jsonl; results/paper_STUDY.json has them all.
"""
import argparse
from small import *
from common import save_results

lrs,seeds,tune_seeds = [.03,.1,.3,1.,3.],5,1
steps = 156 # in 4 epochs of 5,000 images in batches of 128

studies = {
 'data': {str(n): dict(learner=partial(sampled_learner, n=n, total=5000), arms={k:arms[k] for k in ('fit_superconv','multistep')}, budgets=[4,12]) for n in (250,500,1000,2500,5000)},
 'batch': {str(bs): dict(learner=partial(fashion_learner, n_train=5000, width=8, bs=bs), arms={'fit_superconv':arms['fit_superconv']},
                         budgets=list(dict.fromkeys([4, round(steps/(5000//bs))]))) for bs in (32,64,128,256,512)},
 'momentum': {'all': dict(learner=partial(fashion_learner, n_train=5000, width=8), budgets=[4],
                          arms={**{f'constant {m:g}': partial(Learner.fit_superconv, moms=(m,m,m)) for m in (.8,.85,.9,.95)},
                                **{f'{a:g} to {b:g}': partial(Learner.fit_superconv, moms=(a,b,a)) for a,b in ((.95,.85),(.95,.8),(.85,.95))}})}}

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('study', choices=studies)
    ap.add_argument('--quick', action='store_true', help='one epoch, two conditions, two seeds, no files: does it run?')
    a = ap.parse_args()
    quiet_start()
    results.mkdir(exist_ok=True)
    out = {}
    for name,s in list(studies[a.study].items())[:2 if a.quick else None]:
        if a.quick: tuned_comparison('quick', s['learner'], s['arms'], [1], [.1,.3,1.], 2, 1, log=False); continue
        res,tuned = tuned_comparison(f'paper_{a.study}_{name}', s['learner'], s['arms'], s['budgets'], lrs, seeds, tune_seeds)
        out[name] = dict(budgets=s['budgets'], tuned=pack_tuned(tuned), runs=pack(res))
    if out: save_results(f'paper_{a.study}', dict(study=a.study, seeds=seeds, tune_seeds=tune_seeds, lrs=lrs, columns=columns, conditions=out))

if __name__=='__main__': main()
