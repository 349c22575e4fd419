"""The rules by which the evidence page judges a claim.

A claim is asked in several settings: a data set, a network, a budget. Where a setting has paired seeds, each seed gives
one value (a difference, a slope, the logarithm of a ratio), and the setting is judged by the interval of their mean.
Where it is a single case, such as a network that a verdict got right or not, it is for or against the claim.
"""
import math
from dataclasses import dataclass, field
import numpy as np
from scipy import stats

__all__ = ['margin', 'confidence_interval', 'pooled_spread', 'judge', 'Claim', 'steps_to_reach', 'log_speedup']

margin = .5  # points of accuracy within which two results count as level: less than half of the 1.2 points of figure 1a

def confidence_interval(values, # One value for each seed
    looks:int=1, # Intervals that are to hold together
    spread:tuple=None # Standard deviation and degrees of freedom, if they are not those of the values
    ) -> tuple: # mean, low, high; infinite bounds where nothing can be said
    "Mean and its interval by Student's t. `looks` such intervals hold together with 95 % (Bonferroni)"
    x = np.asarray(list(values), dtype=float)
    if not np.isfinite(x).all(): return _median_interval(x, looks)
    sd,df = spread or pooled_spread([x])
    if not df: return float(x.mean()), -math.inf, math.inf
    half = stats.t.ppf(1-.025/looks, df)*sd/math.sqrt(len(x))
    return float(x.mean()), float(x.mean()-half), float(x.mean()+half)

def pooled_spread(settings):
    "Standard deviation between the seeds of a setting, from several together; degrees of freedom. Equal ones are one"
    settings = list({tuple(x) for x in settings})
    df = sum(len(x)-1 for x in settings)
    squares = sum(((np.asarray(x)-np.mean(x))**2).sum() for x in settings)
    return (math.sqrt(squares/df) if df else math.nan), df

def _median_interval(x, looks):
    "Median and its interval from order statistics, for values that may be infinite: of runs that never got there"
    n,x = len(x),np.sort(x)
    k = int(stats.binom.ppf(.025/looks, n, .5))
    while k and 2*stats.binom.cdf(k-1, n, .5)>.05/looks: k -= 1
    low,high = (x[k-1],x[n-k]) if k else (-math.inf,math.inf)
    return float(x[(n-1)//2]), float(low), float(high)

rules = 'above','below','level','not below'

def judge(interval, # mean, low, high
    rule:str # What is claimed of the mean: 'above' or 'below' zero, 'level' with it, or 'not below' it
    ) -> int: # 1: for the claim, -1: against it, 0: open
    "The side of a setting. 'level' and 'not below' allow for `margin`"
    if rule not in rules: raise ValueError(f'rule={rule!r} is not one of {rules}')
    _,low,high = interval
    if rule=='below': return judge((-_,-high,-low), 'above')
    if rule=='above': return int(low>0)-int(high<0)
    if rule=='level': return int(-margin<low and high<margin) - int(low>margin or high<-margin)
    return int(low>-margin)-int(high<-margin)

@dataclass
class Claim:
    "A claim of the papers and what was measured of it"
    what:str # The claim
    theirs:str # What it rests on in the papers
    ours:str # What was measured here, in words
    scope:str # Data sets, networks and budgets that the verdict speaks of
    settings:dict # Name of a setting to the values of its seeds, or to True or False
    rule:str='above' # As in `judge`
    unit:str='points' # 'points', 'times' (the values are logarithms) or another unit
    dropped:dict=field(default_factory=dict) # Name of a setting that could not be asked to the reason
    alike:dict=field(default_factory=dict) # Name of a setting to its group, whose seeds have one spread
    brief:bool=False # Are its numbers shown elsewhere?
    apart:str='' # A word in place of a verdict, if the claim is no part of the tally
    links:str='' # Study, script and data

    def __post_init__(self):
        if not self.settings: raise ValueError(f'{self.what!r} has no settings')
        self.never = {k for k,v in self.settings.items() if np.ndim(v) and np.isneginf(v).all()}
        self.measured = {k:v for k,v in self.settings.items() if np.ndim(v) and k not in self.never}

    @property
    def intervals(self):
        "Mean, low and high of each setting with seeds; all of a claim hold together"
        groups = {}
        for k,v in self.measured.items(): groups.setdefault(self.alike.get(k, k), []).append(v)
        def spread(k): return pooled_spread(groups[self.alike[k]]) if k in self.alike else None
        return {k: confidence_interval(v, len(self.measured), spread(k)) for k,v in self.measured.items()}

    @property
    def sides(self):
        "1, -1 or 0 for each setting. Where no seed ever got there, that is against the claim"
        found = self.intervals
        def side(k, v): return judge(found[k], self.rule) if k in found else -1 if k in self.never or not v else 1
        return {k: side(k, v) for k,v in self.settings.items()}

    @property
    def counts(self):
        "Settings for and against the claim, open, and dropped"
        s = list(self.sides.values())
        return s.count(1), s.count(-1), s.count(0), len(self.dropped)

    @property
    def word(self):
        "The verdict. A setting that dropped out counts as open"
        n,no,maybe,lost = self.counts
        if self.apart: return self.apart
        if not no+maybe+lost: return 'reproduced'
        if n: return 'in part'
        return 'contradicted' if no and not maybe+lost else 'not reproduced' if no else 'open'

    @property
    def verdict(self):
        "The verdict with its counts and its scope, in Markdown"
        n,no,maybe,lost = self.counts
        parts = [f'{n} for', f'{no} against', f'{maybe} open', *[f'{lost} dropped out']*(lost>0)]
        counts = f"<br>{', '.join(parts)}" if len(self.settings)+lost>1 else ''
        return f'**{self.word}**{counts}<br>{self.scope}'

    def numbers(self):
        "A line for each setting that has an interval, and one for each that dropped out"
        if self.brief: return ''
        found = self.intervals
        res = [f'<br>{k}: never, with {len(v)} seeds' if k in self.never else f'<br>{k} {self.text(found[k])}'
               for k,v in self.settings.items() if k in self.never or k in found]
        return ''.join([*res, *(f'<br>{k}: dropped out, {why}' for k,why in self.dropped.items())])

    def text(self, interval):
        "An interval in the unit of the claim"
        if self.unit!='times': m,low,high = ([f'{v:+.2f}' for v in interval])
        else: m,low,high = ('never' if v==-math.inf else f'{math.exp(v):.2f}' for v in interval)
        if math.isinf(interval[1]) and math.isinf(interval[2]): return f'{m} (no interval)'
        return f'{m} ({low} to {high})'

# ---- steps to an accuracy ----

def steps_to_reach(comparison, arm, n_epoch, target):
    "For each seed the optimizer steps until the held-out accuracy is `target`; infinite if that never happens"
    runs = comparison.runs
    runs = runs[(runs.arm==arm) & (runs.n_epoch==n_epoch)]
    first = runs[runs.metric>=target].groupby('seed').step.min()
    return first.reindex(sorted(set(runs.seed)), fill_value=math.inf).astype(float)

def log_speedup(comparison, a, b, target):
    "For each seed the log of how many times fewer steps run `a` needs to `target` than `b`; -inf if it never does"
    x,y = (steps_to_reach(comparison, *o, target) for o in (a,b))
    if not np.isfinite(y).all(): raise ValueError(f'{b} does not reach {target} with every seed')
    return np.log(y)-np.log(x)
