"""Reads the log of `benchmarks/regimes.py`: where one cycle ends above multistep training, and where it does not.

The log has a line for each run that is finished. While the study is not, cells may be empty or rest on one seed; every
function here says on how many seeds a number rests. A search that is not finished has no result.
"""
import numpy as np, pandas as pd
from superconv_fastai.runs import read_log
from stored_results import results

__all__ = ['Regimes', 'arms', 'longer', 'papers_wd']

edges = dict(cycle=(.1,30.), multistep=(.01,3.5)) # the smallest and the largest LR that a search may try
wd_edges = 1e-5,3e-1 # the same for the weight decay
papers_lr,papers_wd = dict(cycle=3., multistep=.35, linear=3., constant=3.),1e-4
arms = ['cycle','cycle, tuned','cycle, tuned with wd','multistep','multistep, tuned','multistep, tuned with wd',
        'linear','constant']
longer = {3:{8:25, 25:75, 75:200, 200:600}, 8:{8:75, 25:200, 75:600}} # epochs of a cycle to those of multistep
cycles = {('cifar10',1000):[8,25,75,200], ('cifar10',2500):[8,25,75,200], ('cifar10',10_000):[8,25,75],
          ('fashion_mnist',2500):[25,75,200]} # epochs of the cycles
longest = {('cifar10',1000):[600], ('cifar10',2500):[600]} # of multistep, beside the lengths of cycles

def best_inside(scores, low, high, at_least):
    "The value with the best score when its neighbours were tried, too; `None` while they were not"
    if len(scores)<at_least: return None
    best = scores.idxmax()
    inside = (best==low or scores.index[0]<best) and (best==high or best<scores.index[-1])
    return best if inside else None

class Regimes:
    "The runs of the study by what was trained"
    def __init__(self, path=results/'regimes.jsonl'):
        keys = 'data images schedule lr wd epochs split seed'.split()
        runs = read_log('study', path)[1]
        rows = [dict(zip(keys, k), **{o:r[o] for o in ('accuracy','status','machine')}) for k,r in runs.items()]
        self.runs = pd.DataFrame(rows, columns=[*keys,'accuracy','status','machine'])

    def select(self, **values):
        "The runs with these values"
        r = self.runs
        return r[np.logical_and.reduce([r[k]==v for k,v in values.items()])]

    # ---- searches, on training items that are held out ----

    def tuned_lr(self, data, images, schedule, epochs, wd=papers_wd):
        "The LR that the search found at this length, or at 75 epochs"
        tried = self.select(data=data, images=images, schedule=schedule, epochs=min(epochs, 75), split='tune', wd=wd)
        return best_inside(tried.set_index('lr').accuracy.sort_index(), *edges[schedule], at_least=3)

    def tuned_lr_wd(self, data, images, schedule, epochs):
        "LR and weight decay that were found together, or two `None`"
        tried = self.select(data=data, images=images, schedule=schedule, epochs=min(epochs, 75), split='tune')
        lrs = {wd:self.tuned_lr(data, images, schedule, epochs, wd) for wd in sorted(set(tried.wd))}
        if None in lrs.values(): return None,None
        wd = best_inside(tried.groupby('wd').accuracy.max(), *wd_edges, at_least=4)
        return lrs.get(wd),wd

    def by_length(self, data, images):
        "Held-out accuracy of multistep with a tuned LR by its number of epochs; NaN where the search is not finished"
        def score(n):
            r = self.select(data=data, images=images, schedule='multistep', epochs=n, split='tune', wd=papers_wd,
                            lr=self.tuned_lr(data, images, 'multistep', n))
            return r.accuracy.iloc[0] if len(r) else None
        lengths = [*cycles[data,images], *longest.get((data,images), [])]
        return pd.Series({n:score(n) for n in lengths}, dtype=float)

    def best_length(self, data, images):
        "The number of epochs at which multistep with a tuned LR is best; the smallest of several"
        scores = self.by_length(data, images)
        return None if scores.isna().any() else int(scores.idxmax())

    # ---- scores, on the test images ----

    def settings(self, data, images, arm, epochs):
        "LR and weight decay of an arm; 'cycle', 'cycle, tuned', 'cycle, tuned with wd' and so on"
        schedule,_,how = arm.partition(', ')
        if how=='tuned with wd': return self.tuned_lr_wd(data, images, schedule, epochs)
        return (self.tuned_lr(data, images, schedule, epochs) if how else papers_lr[schedule]), papers_wd

    def scores(self, data, images, arm, epochs):
        "Test accuracy by seed and kind of machine: a cell of the study"
        lr,wd = self.settings(data, images, arm, epochs)
        r = self.select(data=data, images=images, schedule=arm.split(',')[0], epochs=epochs, split='test', lr=lr, wd=wd)
        return r.set_index(['seed','machine']).accuracy.sort_index()

    def difference(self, data, images, a, b):
        "Accuracy of a run minus that of another, in points, by seed and kind of machine. A run is (arm, epochs)"
        return 100*(self.scores(data, images, *a)-self.scores(data, images, *b)).dropna()

    def gain(self, data, images, epochs, baseline_epochs, how=''):
        "Accuracy of a cycle minus that of multistep, in points, for each seed that ran both on one kind of machine"
        return self.difference(data, images, (f'cycle{how}',epochs), (f'multistep{how}',baseline_epochs)).to_numpy()

    def baselines(self, data, images, epochs, tuned):
        "How long the multistep runs are with which a cycle is compared, and in how many epochs"
        yield 'as many',epochs
        for k in (3,8): yield f'{k} times as many',longer[k].get(epochs)
        if tuned: yield 'its best length',self.best_length(data, images)

    def table(self):
        "The gain over multistep for each cell of which a seed is finished"
        rows = []
        cells = self.select(split='test', schedule='cycle')[['data','images','epochs']].drop_duplicates()
        for data,images,n in sorted(cells.itertuples(index=False)):
            for how in ('',', tuned'):
                for against,m in self.baselines(data, images, n, how):
                    if m is None or not len(d := self.gain(data, images, n, m, how)): continue
                    rows.append(dict(data=data, images=images, epochs=n, lr='tuned' if how else "the paper's",
                                     against=against, baseline_epochs=m, seeds=len(d), gain=d.mean(), values=d))
        return pd.DataFrame(rows, columns='data images epochs lr against baseline_epochs seeds gain values'.split())

    def finished(self):
        "Which cells have three seeds for the paper's and the tuned LR, and how many are planned"
        def whole(*cell): return all(len(self.gain(*cell, cell[-1], how))>2 for how in ('',', tuned'))
        planned = [(*k,n) for k,ns in cycles.items() for n in ns]
        return [c for c in planned if whole(*c)],len(planned)

    def slopes(self, data, epochs, baseline_epochs, how=''):
        "For each seed the change of the gain, in points, for each ten times more images, and how many sizes it has"
        gains = {n: self.difference(data, n, (f'cycle{how}',epochs), (f'multistep{how}',baseline_epochs))
                 for d,n in cycles if d==data}
        gains = pd.DataFrame({n:g for n,g in gains.items() if len(g)}).dropna()
        if len(gains.columns)<2 or gains.empty: return pd.Series(dtype=float),0
        slopes = np.polyfit(np.log10(gains.columns.astype(float)), gains.T, 1)[0]
        return pd.Series(slopes, gains.index),len(gains.columns)
