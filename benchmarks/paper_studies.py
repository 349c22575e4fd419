"""The papers' small studies at the size that fits a core: less data, batch size, momentum.

    SUPERCONV_DATA=/path/to/data python benchmarks/paper_studies.py data|batch|momentum [--task digits|fashion] [--quick]

'digits' is 1,000 images and two convolutions with BatchNorm, 'fashion' 5,000 of Fashion-MNIST at 14x14 and a ResNet-8 of 20,000 parameters.
Weight decay 0.01, paired seeds; the LR of every arm in every condition is tuned on held-out images that never score (grid 0.03 to 3, extended at
its edges, the same tuning seeds, by accuracy). A short run has about 160 steps.

data      1/20 to all of the images, a different sample with each seed, as many steps for each size: `fit_superconv` and multistep in a short run,
          and multistep in one three times as long. (arXiv 1708.07120, figure 6a: the gain grows as the data shrinks.)
batch     five batch sizes with `fit_superconv`, in as many epochs and in about as many steps. (1708.07120, table 5: larger is better.)
momentum  constant 0.8 to 0.95 against cyclical momentum, falling and rising while the LR rises. (1803.09820, table 1: the best constant one
          and the falling cycle are level.)

Weight decay against lr_max is `balance.py`. Each finished run is a line in results/paper_*.jsonl; results/paper_STUDY_TASK.json has them all.
"""
import argparse
from small import *
from common import save_results

lrs,seeds,tune_seeds = [.03,.1,.3,1.,3.],6,2
tasks = {'digits': dict(learner=digits_learner, few=few_digits, total=1000, n=10, sizes=[50,100,200,500,1000], bss={16:3, 32:5, 64:10, 128:20, 256:40}),
         'fashion': dict(learner=partial(fashion_learner, n_train=5000, width=8), few=few_fashion, total=5000, n=4, sizes=[250,500,1000,2500,5000], bss={32:1, 64:2, 128:4, 256:8, 512:17})}

def plan(study, learner, few, total, n, sizes, bss):
    "Conditions by name: learner, arms and the budgets of each; `n` epochs are a short run, `bss` says how many epochs have as many steps"
    if study=='data': return {str(k): (partial(few, n=k, total=total), {a:arms[a] for a in ('fit_superconv','multistep')}, {'fit_superconv':[n], 'multistep':[n,3*n]}) for k in sizes}
    if study=='batch': return {str(bs): (partial(learner, bs=bs), {'fit_superconv':arms['fit_superconv']}, {'fit_superconv':list(dict.fromkeys([n,m]))}) for bs,m in bss.items()}
    moms = {**{f'constant {m:g}':(m,m,m) for m in (.8,.85,.9,.95)}, **{f'{a:g} to {b:g}':(a,b,a) for a,b in ((.95,.85),(.95,.8),(.85,.95))}}
    return {'all': (learner, {k: partial(Learner.fit_superconv, moms=m) for k,m in moms.items()}, {k:[n] for k in moms})}

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('study', choices=('data','batch','momentum')); ap.add_argument('--task', choices=tasks, default='digits')
    ap.add_argument('--quick', action='store_true', help='one epoch, one condition, two seeds, no files: does it run?')
    a = ap.parse_args()
    quiet_start()
    results.mkdir(exist_ok=True)
    out,name = {},f'paper_{a.study}_{a.task}'
    for k,(learner,fits,budgets) in plan(a.study, **tasks[a.task]).items():
        if a.quick: return tuned_comparison('quick', learner, dict(list(fits.items())[:2]), [1], [.1,.3,1.], 2, 1, log=False)
        res,tuned = tuned_comparison(f'{name}_{k}', learner, fits, budgets, lrs, seeds, tune_seeds)
        out[k] = dict(tuned=pack_tuned(tuned), runs=pack(res))
    save_results(name, dict(study=a.study, task=a.task, short=tasks[a.task]['n'], seeds=seeds, tune_seeds=tune_seeds, lrs=lrs, columns=columns, conditions=out))

if __name__=='__main__': main()
