"""The papers' small studies at the size that fits a core: less data, batch size, momentum, the tail, optimizers.

    SUPERCONV_DATA=/path/to/data python benchmarks/paper_studies.py STUDY [--task digits|fashion] [--quick]

'digits' is 1,000 images and two convolutions with BatchNorm, 'fashion' 5,000 of Fashion-MNIST at 14x14 and a ResNet-8
of 20,000 parameters. Weight decay 0.01, paired seeds; the LR of every arm in every condition is tuned on held-out
images that never score (grid 0.03 to 3, extended at its edges, the same tuning seeds, by accuracy). A short run has
about 160 steps.

data      1/20 to all of the images, a different sample with each seed, as many steps for each size: `fit_superconv`
          and multistep in a short run, and multistep in one three times as long. (arXiv 1708.07120, figure 6a: the
          gain grows as the data shrinks.)
batch     five batch sizes with `fit_superconv`, in as many epochs and in about as many steps. (1708.07120, table 5:
          larger is better.)
momentum  constant 0.8 to 0.95 against cyclical momentum, falling and rising while the LR rises. (1803.09820, table 1:
          the best constant one and the falling cycle are level.)
tail      no tail, and tails of 5 to 25 % of the steps, in which the LR falls to 1/1000 of the initial one.
          (1708.07120: the tail raises accuracy.)
optimizer SGD, Nesterov, AdaGrad, AdaDelta and Adam, `fit_superconv` and multistep in a short run, and multistep in one
          three times as long; each optimizer with a grid of LRs around its own usual ones. (1708.07120, figure 8: Adam
          does not super-converge.)

Weight decay against lr_max is `balance.py`. Each finished run is a line in results/paper_*.jsonl;
results/paper_STUDY_TASK.json has them all.
"""
import argparse
from small import *

lrs,seeds,tune_seeds = [.03,.1,.3,1.,3.],6,2
studies = 'data','batch','momentum','tail','optimizer'
def of_torch(opt, **kwargs): return partial(OptimWrapper, opt=partial(opt, **kwargs))
optimizers = {'SGD': (sgd, lrs), 'Nesterov': (of_torch(torch.optim.SGD, momentum=.9, nesterov=True), lrs),
              'AdaGrad': (of_torch(torch.optim.Adagrad), [.01,.03,.1,.3]),
              'AdaDelta': (of_torch(torch.optim.Adadelta), [.3,1.,3.,10.]), 'Adam': (Adam, [.003,.01,.03,.1])}
# `n` epochs are a short run; `bss` says how many epochs have as many steps with each batch size
tasks = {'digits': dict(learner=digits_learner, few=few_digits, total=1000, n=10, sizes=[50,100,200,500,1000],
                        bss={16:3, 32:5, 64:10, 128:20, 256:40}),
         'fashion': dict(learner=partial(fashion_learner, n_train=5000, width=8), few=few_fashion, total=5000, n=4,
                         sizes=[250,500,1000,2500,5000], bss={32:1, 64:2, 128:4, 256:8, 512:17})}

def plan(study, learner, few, total, n, sizes, bss):
    "Conditions by name: learner, arms, the budgets of each and LRs to try"
    pair = {a:arms[a] for a in ('fit_superconv','multistep')}
    long = {'fit_superconv':[n], 'multistep':[n,3*n]}
    def same(fits): return {'all': (learner, fits, {k:[n] for k in fits}, lrs)}
    if study=='data': return {str(k): (partial(few, n=k, total=total), pair, long, lrs) for k in sizes}
    if study=='optimizer':
        return {k: (partial(learner, opt=opt), pair, long, tries) for k,(opt,tries) in optimizers.items()}
    if study=='tail':
        return same({f'tail {100*t:g} %': partial(Learner.fit_superconv, tail_pct=t) for t in [0,.05,.1,.25]})
    if study=='batch':
        one = {'fit_superconv':arms['fit_superconv']}
        def budgets(m): return {'fit_superconv':list(dict.fromkeys([n,m]))}
        return {str(bs): (partial(learner, bs=bs), one, budgets(m), lrs) for bs,m in bss.items()}
    moms = {f'constant {m:g}':(m,m,m) for m in (.8,.85,.9,.95)}
    moms |= {f'{a:g} to {b:g}':(a,b,a) for a,b in ((.95,.85),(.95,.8),(.85,.95))}
    return same({k: partial(Learner.fit_superconv, moms=m) for k,m in moms.items()})

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('study', choices=studies)
    ap.add_argument('--task', choices=tasks, default='digits')
    ap.add_argument('--quick', action='store_true', help='one epoch, two arms of each condition, two seeds, no files')
    a = ap.parse_args()
    quiet_start()
    results.mkdir(exist_ok=True)
    out,name = {},f'paper_{a.study}_{a.task}'
    for k,(learner,fits,budgets,tries) in plan(a.study, **tasks[a.task]).items():
        if a.quick:
            tuned_comparison('quick', learner, dict(list(fits.items())[:2]), [1], tries[1:4], 2, 1, log=False)
            continue
        res,tuned = tuned_comparison(f'{name}_{k}', learner, fits, budgets, tries, seeds, tune_seeds)
        out[k] = dict(lrs=tries, tuned=pack_tuned(tuned), runs=pack(res))
    if a.quick: return
    settings = dict(study=a.study, task=a.task, short=tasks[a.task]['n'], seeds=seeds, tune_seeds=tune_seeds)
    save_results(name, dict(**settings, columns=columns, conditions=out))

if __name__=='__main__': main()
