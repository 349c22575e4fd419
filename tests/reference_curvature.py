"Naive versions of what superconv_fastai.curvature streams: whole snapshots around every call of the optimizer, plain loops, float64"
import math
from fastai.basics import *

class Snapshots(Callback):
    "Wraps the optimizer's own `step`: all weights before and after each real step, with LR and momentum of every group. Independent of callback events"
    order = 90
    def __init__(self, blobs=False): self._blobs,self._steps = blobs,[]
    def _snap(self):
        if self._blobs: return [[v.detach().double().clone() for v in self.learn.model.state_dict().values()]]
        return [[p.detach().double().clone() for p in pg if p.requires_grad] for pg in self.learn.opt.param_lists]
    def before_fit(self):
        opt,f = self.learn.opt,self.learn.opt.step
        def step(*args, **kwargs):
            before = self._snap()
            f(*args, **kwargs)
            hs = opt.hypers
            self._steps.append((before, self._snap(), [float(h['lr']) for h in hs], [float(h.get('mom', 0.)) for h in hs]))
        opt.step = step

def differences(steps, lrs): return [[(b-a)/lr if lr else None for a,b in zip(x, y)] for (x,y),lr in zip(steps, lrs)]

def pair_sums(first, second):
    "Sums of |d_i| and of |d_i/lr_i - d_{i+1}/lr_{i+1}|, and s.y, over all groups whose LR is not 0; None when there is none"
    num = den = dot = 0.; some = False
    for x0,x1,lr0,y0,y1,lr1 in zip(first[0], first[1], first[2], second[0], second[1], second[2]):
        if lr0==0 or lr1==0: continue
        some = True
        for a,b,c,d in zip(x0, x1, y0, y1):
            y = (b-a)/lr0 - (d-c)/lr1
            num += (b-a).abs().sum().item(); den += y.abs().sum().item(); dot += ((b-a)*y).sum().item()
    return (num,den,dot) if some else None

def paper_estimates(steps, every=1, alpha=.1, smoothing='sums'):
    "`[step, raw, smooth, sign]` for each pair of consecutive steps, once per `every`"
    res,num,den,avg,w = [],0.,0.,0.,0.
    for i in range(len(steps)-1):
        if i%every: continue
        s = pair_sums(steps[i], steps[i+1])
        if s is None: continue
        num,den,w = alpha*s[0]+(1-alpha)*num, alpha*s[1]+(1-alpha)*den, alpha+(1-alpha)*w
        avg = alpha*s[0]/s[1] + (1-alpha)*avg
        res.append([i+1, s[0]/s[1], num/den if smoothing=='sums' else avg/w, math.copysign(1, s[2])])
    return res

def authors_script(snapshots, lrs, alpha=.1):
    "What the authors' L2TermComputation scripts compute, written anew: LR(i) in front, all blobs, average started at 0.1"
    res,avg = [],.1
    for i in range(len(snapshots)-2):
        top = sum((b-a).abs().sum().item() for a,b in zip(snapshots[i], snapshots[i+1]))
        bot = sum((2*b-a-c).abs().sum().item() for a,b,c in zip(snapshots[i], snapshots[i+1], snapshots[i+2]))
        est = lrs[i]*top/bot
        avg = alpha*est + (1-alpha)*avg
        res.append([i+1, est, avg])
    return res
