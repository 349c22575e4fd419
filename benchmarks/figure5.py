"""Figure 5 of the super-convergence paper, explained in three experiments. About three minutes on one core.

    SUPERCONV_DATA=/path/to/data python benchmarks/figure5.py

1. The LR swept over a factor 1000. Without momentum the estimate over the LR stays near the noise floor's constant
   (1.0 to 0.65); with momentum it falls, 8.7 to 2.5 for 0.9 and 16 to 4 for 0.95, because at small LRs drift and the
   oscillation of momentum lift it off the floor.
2. No training at all: the first convolution at its initial weights and Caffe's BatchNorm blobs, un-normalised running
   sums S <- 0.999*S + batch statistic, on real CIFAR-10 batches of 125, raw pixels. Eq. 8 on these blobs at LR 0.1,
   as the authors' script averages it.
3. Full-batch gradient descent, no momentum: no mini-batch noise, and the estimate is the inverse curvature along the
   gradient, whatever the LR.
"""
import numpy as np, torch
from fastai.basics import *
from fastai.callback.progress import ProgressCallback
from superconv_fastai.curvature import *
from superconv_fastai.data import digits, load_images, tensor_dls
from common import save_results
from small import conv_net
import copy # after the star imports

def quiet(learn): return ContextManagers([learn.no_bar(), learn.no_logging()])

def estimate_at(mom, lr):
    "Smoothed estimate after 60 steps of SGD on digits, batches of 64"
    set_seed(0)
    dls = tensor_dls(digits('train'), digits('tune'), device='cpu')
    learn = Learner(dls, conv_net(1), loss_func=nn.CrossEntropyLoss(), opt_func=partial(SGD, mom=mom), wd=0.)
    est = HessianFreeLR(every=1, n_coords=None)
    with quiet(learn): learn.fit(8, lr=lr, cbs=est)
    o = est.estimates[est.estimates.step>=60]
    return float(o.raw.median()),float(o.informative.mean())

def sweep():
    "1: the estimate over the LR"
    res = []
    for mom in (0.,.9,.95):
        for lr in np.logspace(-3, 0, 7).tolist():
            value,share = estimate_at(mom, lr)
            floor = noise_floor(float(lr), mom)
            res.append(dict(mom=mom, lr=float(lr), estimate=value, floor=floor, informative=share))
            print(f'momentum {mom:<4} lr {lr:8.4f}  estimate/lr {value/lr:6.2f}  floor/lr {noise_floor(1., mom):.2f}',
                  f'informative {share:.0%}', sep='  ', flush=True)
    return res

def bookkeeping(maf, n=300, bs=125, lr=.1, seed=0):
    "2: Eq. 8 on Caffe's three BatchNorm blobs behind the first convolution. No weight moves"
    x = load_images('cifar10')[0][0][:bs*(n+2)].float()
    x -= x.mean((0,), keepdim=True)
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))] # LMDBs are shuffled when they are made
    torch.manual_seed(seed)
    conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode='fan_in', nonlinearity='relu') # Caffe's msra filler
    blobs = [torch.zeros(n, dtype=torch.float64) for n in (16,16,1)]
    snaps,avg,res = [[b.clone() for b in blobs]],.1,[]
    with torch.no_grad():
        for i in range(n+1):
            y = conv(x[i*bs:(i+1)*bs])
            for b,new in zip(blobs, (y.mean((0,2,3)), y.var((0,2,3)), torch.ones(1))): b.mul_(maf).add_(new)
            snaps = snaps[-2:] + [[b.clone() for b in blobs]]
            if len(snaps)==3:
                raw = hessian_free_lr(*snaps, lr)
                avg = .1*raw + .9*avg
                res.append([i, raw, avg])
    return res

def full_batch():
    "3: gradient descent on 500 digits without BatchNorm, against |g|/|Hg| from an exact Hessian-vector product"
    x,y = (t[:500] for t in digits('train'))
    x = x.double()
    torch.manual_seed(0)
    start = nn.Sequential(Flatten(), nn.Linear(64,32), nn.Tanh(), nn.Linear(32,10)).double()
    def gradient(m, graph=False):
        return torch.autograd.grad(F.cross_entropy(m(x), y), list(m.parameters()), create_graph=graph)
    for _ in range(50): # somewhere on the way, not at the first weights
        with torch.no_grad():
            for p,g in zip(start.parameters(), torch.enable_grad()(gradient)(start)): p -= .1*g
    g = gradient(start, graph=True)
    Hg = torch.autograd.grad(sum((a*a.detach()).sum() for a in g), list(start.parameters()))
    truth = (sum(a.abs().sum() for a in g)/sum(a.abs().sum() for a in Hg)).item()
    res = []
    for lr in np.logspace(-4, -1, 7).tolist():
        m,snaps = copy.deepcopy(start),[]
        for _ in range(3):
            snaps.append([p.detach().clone() for p in m.parameters()])
            gs = gradient(m)
            with torch.no_grad():
                for p,g in zip(m.parameters(), gs): p -= lr*g
        res.append(dict(lr=float(lr), estimate=hessian_free_lr(*snaps, float(lr)), truth=truth))
        print(f"full batch lr {lr:8.5f}  estimate {res[-1]['estimate']:8.3f}  |g|/|Hg| {truth:8.3f}", flush=True)
    return res

def main():
    torch.set_num_threads(1)
    out = dict(sweep=sweep(), full_batch=full_batch())
    out['bookkeeping'] = {str(maf): bookkeeping(maf) for maf in (.999,.95)}
    for maf,rows in out['bookkeeping'].items():
        some = {i: round(avg, 2) for i,_,avg in rows if i in (10,20,50,100,200,300)}
        print(f'BatchNorm sums alone, moving average {maf}, LR 0.1:', some)
    save_results('figure5', out)

if __name__=='__main__': main()
