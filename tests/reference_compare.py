"What compare.py computes, as plainly as possible"
import math, random
from itertools import product

import numpy as np, torch
from scipy import stats

def train(make_learner, seed, lrs, mom):
    "SGD with momentum by hand, an LR for each step: held-out loss and accuracy, mean training loss, after each epoch"
    def reseed(): random.seed(seed); np.random.seed(seed); torch.manual_seed(seed)
    reseed()
    learn = make_learner(seed)
    reseed()
    for dl in learn.dls.loaders: dl.rng = random.Random(seed)
    model,params = learn.model,list(learn.model.parameters())
    velocity,rows,lrs = [torch.zeros_like(p) for p in params],[],list(lrs)
    while lrs:
        model.train()
        total = n = 0
        for x,y in learn.dls.train:
            loss = torch.nn.functional.cross_entropy(model(x), y)
            total,n,lr = total+loss.item()*len(y),n+len(y),lrs.pop(0)
            for p,v,g in zip(params, velocity, torch.autograd.grad(loss, params)):
                v.mul_(mom).add_(g)
                p.data.sub_(lr*v)
        model.eval()
        with torch.no_grad():
            x,y = (torch.cat(o) for o in zip(*learn.dls.valid))
            out = model(x)
            rows.append((torch.nn.functional.cross_entropy(out, y).item(), (out.argmax(1)==y).float().mean().item(), total/n))
    return rows

def paired_t(a, b):
    "scipy's own interval for paired samples"
    ci = stats.ttest_rel(a, b).confidence_interval(.95)
    return ci.low,ci.high

def median_interval(x):
    "The narrowest pair of order statistics, equally far from both ends, that holds the median of n values in 95 % of all cases. By counting all of them"
    x,n = sorted(x),len(x)
    for k in range(n//2, 0, -1): # the true median lies between the k-th smallest and the k-th largest unless fewer than k values lie on one side of it
        inside = sum(k <= sum(sides) <= n-k for sides in product((0,1), repeat=n))
        if inside/2**n >= .95: return x[k-1],x[n-k]
    return 0.,math.inf

def steps_to(rows, target, lower_is_better=False):
    "`rows` of (step, score)"
    for step,score in rows:
        if score is not None and (score<=target if lower_is_better else score>=target): return step
    return math.inf

def multistep(n, lr): return [lr if i<n/2 else lr/10 if i<3*n/4 else lr/100 for i in range(n)]
def linear(n, lr): return [lr*(n-i)/n for i in range(n)]
