"""Reads the log of `benchmarks/regimes.py`: where one cycle ends above multistep training, and where it does not.

The log has a line for each run that is finished. While the study is not, cells may be empty or rest on one seed; every
function here says on how many seeds a number rests.
"""
import numpy as np, pandas as pd
from superconv_fastai.runs import read_log
from stored_results import results

__all__ = ['Regimes']

edges = dict(cycle=(.1,30.), multistep=(.01,3.5))  # the smallest and the largest LR that a search may try
papers = dict(cycle=3., multistep=.35, linear=3., constant=3.)

class Regimes:
    "The runs of the study by what was trained"
    def __init__(self, path=results/'regimes.jsonl'):
        keys = 'data images schedule lr wd epochs split seed'.split()
        runs = read_log('study', path)[1]
        rows = [dict(zip(keys, k), **{o:r[o] for o in ('accuracy','status','machine')}) for k,r in runs.items()]
        self.runs = pd.DataFrame(rows,
                                 columns=[*keys,'accuracy','status','machine'])

    def tuned_lr(self, data, images, schedule, epochs):
        "The LR that the search found at this length, or at 75 epochs; `None` while the search is not finished"
        r = self.runs
        r = r[(r.data==data) & (r.images==images) & (r.schedule==schedule) & (r.split=='tune') & (r.wd==1e-4)]
        tried = r[r.epochs==min(epochs, 75)].set_index('lr').accuracy.sort_index()
        if tried.empty: return None
        best,(low,high) = tried.idxmax(),edges[schedule]
        enclosed = (best==low or tried.index[0]<best) and (best==high or best<tried.index[-1])
        return best if enclosed and len(tried)>2 else None

    def scores(self, data, images, arm, epochs):
        "Test accuracy by seed and kind of machine: a cell of the study. `arm` is 'cycle' or 'cycle, tuned', and so on"
        schedule,_,how = arm.partition(', ')
        lr = self.tuned_lr(data, images, schedule, epochs) if how else papers[schedule]
        r = self.runs
        r = r[(r.data==data) & (r.images==images) & (r.schedule==schedule) & (r.epochs==epochs) & (r.split=='test')]
        return r[(r.lr==lr) & (r.wd==1e-4)].set_index(['seed','machine']).accuracy.sort_index()

    def gain(self, data, images, epochs, baseline_epochs, how=''):
        "Accuracy of a cycle minus that of multistep, in points, for each seed that ran both on one kind of machine"
        a,b = (self.scores(data, images, f'{s}{how}', n) for s,n in (('cycle',epochs),('multistep',baseline_epochs)))
        return 100*(a-b).dropna().to_numpy()

    def table(self, lengths=(1,3,8)):
        "For each cell the mean gain of its seeds over multistep in as many, 3 and 8 times as many epochs"
        longer = {1:lambda n: n, 3:{8:25, 25:75, 75:200, 200:600}.get, 8:{8:75, 25:200, 75:600}.get}
        rows = []
        cells = self.runs[self.runs.split=='test'][['data','images','epochs']].drop_duplicates()
        for data,images,n in sorted(cells.itertuples(index=False)):
            for how in ('',', tuned'):
                for k in lengths:
                    if (m := longer[k](n)) is None or not len(d := self.gain(data, images, n, m, how)): continue
                    rows.append(dict(data=data, images=images, epochs=n, lr='tuned' if how else "the paper's", longer=k,
                                     baseline_epochs=m, seeds=len(d), gain=d.mean(), values=d))
        return pd.DataFrame(rows, columns='data images epochs lr longer baseline_epochs seeds gain values'.split())
