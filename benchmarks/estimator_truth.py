"""Which LR estimates can be trusted, when, and within what factor?

    SUPERCONV_DATA=/path/to/data python benchmarks/estimator_truth.py [--log FILE] [--cells digits/mlp/sgd,...]

Four small networks (plain convolutions, convolutions with BatchNorm, an MLP, a residual net with BatchNorm), two real
data sets (digits, Fashion-MNIST at 14x14), SGD, SGD with momentum 0.9 and Adam. For each of the cells first the
truth: the constant LR with the lowest mean validation loss after a short training, over a grid of factor sqrt(10),
refined to 10^(1/4) around the best, 3 seeds. Then the estimates: Eq. 8, secant and update probe during training at a
thirtieth of the best LR and at the best, for the cells in `wide` also at a third and at three times it;
`curvature_lr` and 2/lambda_max at the initial weights and after an epoch at a small LR, the LR at which the probe
meets a rising LR (`curvature_lr_find`), the four suggestions of `lr_find`, and the range test. Each finished run is
one line of the log, so an interrupted study goes on where it stopped; at the end results/estimator_truth.json holds
all lines.
"""
import argparse, json, warnings
from pathlib import Path
import numpy as np, torch
from fastai.basics import *
from fastai.callback.schedule import minimum, steep, valley, slide
from superconv_fastai.curvature import *
from superconv_fastai.curvature_lr import *
from superconv_fastai.data import digits, load_images, tensor_dls
from superconv_fastai.range_test import *
from common import results, save_results
import copy, math, time # after the star import

def fashion(n_train=3000, n_valid=1000):
    both = zip(load_images('fashion_mnist'), (n_train,n_valid))
    (x,y),(xv,yv) = ((F.avg_pool2d(x[:n].float(), 2), y[:n]) for (x,y),n in both)
    m,s = x.mean(),x.std()
    return ((x-m)/s,y),((xv-m)/s,yv)

class Res(Module):
    def __init__(self, n):
        def conv(): return nn.Conv2d(n, n, 3, padding=1, bias=False)
        self.body = nn.Sequential(conv(), nn.BatchNorm2d(n), nn.ReLU(), conv(), nn.BatchNorm2d(n))
    def forward(self, x): return F.relu(x+self.body(x))

def conv(bn):
    def block(i, o): return [nn.Conv2d(i,o,3,padding=1,bias=not bn)] + [nn.BatchNorm2d(o)]*bn + [nn.ReLU()]
    def net(size):
        body = *block(1, 12),nn.MaxPool2d(2),*block(12, 24)
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), Flatten(), nn.Linear(96, 10))
    return net

def mlp(size):
    return nn.Sequential(Flatten(), nn.Linear(size*size,64), nn.ReLU(), nn.Linear(64,64), nn.ReLU(), nn.Linear(64,10))

def resnet(size):
    first = nn.Conv2d(1, 16, 3, stride=1 if size<10 else 2, padding=1, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(16), nn.ReLU(), Res(16), nn.MaxPool2d(2), Res(16),
                         nn.AdaptiveAvgPool2d(1), Flatten(), nn.Linear(16, 10))

nets = dict(conv=conv(False), conv_bn=conv(True), mlp=mlp, resnet=resnet)
# side of the images, epochs, tensors
data = {'digits': (8, 10, lambda: (digits('train'),digits('tune'))), 'fashion': (14, 5, fashion)}
opts = {'sgd': (SGD, 0.), 'mom': (partial(SGD, mom=.9), .9), 'adam': (Adam, None)}
start = {'sgd': .3, 'mom': .03, 'adam': .01} # where the grid begins
wide = [f'digits/{n}/{o}' for n in nets for o in opts]
wide += [f'fashion/{o}' for o in ('conv/sgd','conv/mom','conv/adam','conv_bn/sgd')] # Fashion-MNIST is slower
seeds,bs,cache = (0,1,2),64,{}

def learner(cell, seed, **kwargs):
    d,net,opt = cell.split('/')
    size,epochs,get = data[d]
    if d not in cache: cache[d] = get()
    set_seed(seed)
    dls = tensor_dls(*cache[d], bs=bs, device='cpu')
    dls.train.drop_last = True
    learn = Learner(dls, nets[net](size), loss_func=nn.CrossEntropyLoss(), opt_func=opts[opt][0], metrics=accuracy,
                    wd=0., path=Path('/tmp'), **kwargs)
    return learn,epochs

def quiet(learn): return ContextManagers([learn.no_bar(), learn.no_logging()])

def finite(v): return v if math.isfinite(v) else None

def train(cell, lr, seed, cbs=None, epochs=None):
    learn,n = learner(cell, seed)
    with quiet(learn): learn.fit(epochs or n, lr=lr, cbs=cbs)
    loss,acc = learn.recorder.values[-1][1:3]
    return learn,dict(valid_loss=finite(loss), accuracy=acc, train_loss=finite(float(learn.recorder.losses[-1])))

class Secant(HessianFreeLR): pass
class Probe(HessianFreeLR): pass

def observe(cell, lr, seed):
    "A short training at `lr`, watched by all modes; values after the first epoch and at the end"
    cbs = [Probe('probe', every=5)]
    if not cell.endswith('adam'): cbs += [Secant('secant', every=5), HessianFreeLR(every=5)]
    mom = opts[cell.split('/')[2]][1]
    _,res = train(cell, lr, seed, cbs)
    _,n = learner(cell, seed)
    res['n_epoch'] = n
    for cb in cbs:
        df = cb.estimates
        per = len(cache[cell.split('/')[0]][0][0])//bs
        for when,o in (('epoch 1', df[df.step<per]), ('end', df)):
            last = o.iloc[-1]
            unit = 1-mom if cb._mode=='secant' else 1. # the secant is stored as for SGD without momentum
            res[f'{cb._mode}, {when}'] = dict(value=finite(float(last.smooth/unit)), informative=bool(last.informative),
                                             reason=last.reason, share=float(o.informative.mean()), lr=float(last.lr))
    return res

def lambda_max(learn, n=256):
    "Largest eigenvalue of the Hessian of the loss on `n` training items, in training mode"
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh
    x,y = (t[:n] for t in learn.dls.train.dataset.tensors)
    model = copy.deepcopy(learn.model).train()
    for m in model.modules():
        if not isinstance(m, nn.BatchNorm2d): continue
        m.track_running_stats,m.running_mean = False,None # batch statistics, and nothing that changes
        m.running_var,m.num_batches_tracked = None,None
    params = [p for p in model.parameters() if p.requires_grad]
    H = HessianLinearOperator(model, nn.CrossEntropyLoss(), params, [(x,y)], check_deterministic=False)
    return float(eigsh(H.to_scipy(), k=1, which='LA', tol=3e-2, return_eigenvectors=False)[0])

def still(cell, lr, seed):
    "What needs no training: at the initial weights, and after an epoch at the small LR `lr`"
    res = {}
    for when in ('init','warm'):
        if when=='init': learn,_ = learner(cell, seed)
        else: learn,_ = train(cell, lr, seed, epochs=1)
        c = learn.curvature_lr()
        res[when] = dict(probe=finite(c.probe), secant=finite(c.secant), interval=[finite(v) for v in c.interval],
                         informative=c.informative, reason=c.reason)
        if cell.endswith('sgd'): # the other optimizers start at the same weights
            res[when]['lambda_max'] = lambda_max(learn)
    return res

def finders(cell, seed):
    learn,_ = learner(cell, seed)
    with quiet(learn):
        try: s = learn.lr_find(suggest_funcs=(minimum,steep,valley,slide), show_plot=False)
        except Exception as e: return dict(error=f'{type(e).__name__}: {e}')
    return {k: float(v) for k,v in s._asdict().items()}

def ramp(cell, seed):
    "Where the update probe meets a rising LR"
    learn,_ = learner(cell, seed)
    f = learn.curvature_lr_find()
    return dict(lr=f.lr, reason=f.reason, steps=int(f.estimates.step.max())+1)

def range_test(cell, seed, top):
    "`lr_max` of the linear range test up to 3 (Adam: 0.3, momentum: 1)"
    learn,_ = learner(cell, seed)
    with quiet(learn): r = learn.lr_range_test(lr_max=top, n_steps=150, show_plot=False)
    return dict(lr_max=None if r.lr_max is None else float(r.lr_max), feasible=r.verdict.feasible)

def better(runs): return np.mean([r['valid_loss'] if r['valid_loss'] is not None else 99. for r in runs])

class Study:
    def __init__(self, path):
        self.path,self.lines = Path(path),{}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                o = json.loads(line)
                self.lines[o['key']] = o['result']

    def __call__(self, f, *args):
        "The result of `f`, from the log if it is there"
        key = f"{f.__name__} {' '.join(f'{a:.6g}' if isinstance(a, float) else str(a) for a in args)}"
        if key not in self.lines:
            t = time.perf_counter()
            res = f(*args)
            if isinstance(res, tuple): res = res[1]
            self.lines[key] = res
            line = json.dumps(dict(key=key, seconds=round(time.perf_counter()-t, 2), result=res))
            with self.path.open('a') as o: o.write(line+'\n')
        return self.lines[key]

    def score(self, cell, e):
        "Mean loss with the LR 10^(e/4); `e` is an integer"
        return better([self(train, cell, 10**(e/4), s) for s in seeds])

    def truth(self, cell):
        "Mean loss by LR: coarse (factor sqrt 10) until the best is inside by two, then refined"
        e = 2*round(2*math.log10(start[cell.split('/')[2]]))
        scores = {k: self.score(cell, k) for k in range(e-4, e+5, 2)}
        def best(): return min(scores, key=scores.get)
        while best() <= min(scores)+2: scores[min(scores)-2] = self.score(cell, min(scores)-2)
        while best() >= max(scores)-2: scores[max(scores)+2] = self.score(cell, max(scores)+2)
        middle = best()
        for k in (middle-1,middle+1): scores[k] = self.score(cell, k)
        return {10**(k/4): v for k,v in sorted(scores.items())}

    def cell(self, cell):
        t = time.perf_counter()
        scores = self.truth(cell)
        best = min(scores, key=scores.get)
        for s in seeds:
            for f in (best/30, best/3, best, 3*best) if cell in wide else (best/30, best): self(observe, cell, f, s)
            self(still, cell, best/30, s)
            self(finders, cell, s)
            self(ramp, cell, s)
            self(range_test, cell, s, {'sgd':3.,'mom':1.,'adam':.3}[cell.split('/')[2]])
        print(f"{cell:22} best lr {best:.3g}, loss {scores[best]:.3f}, {time.perf_counter()-t:.0f} s", flush=True)
        return dict(scores=[[k,v] for k,v in scores.items()], best=best)

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--log', default=str(results/'estimator_truth.jsonl'))
    ap.add_argument('--cells', default='')
    a = ap.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    study = Study(a.log)
    cells = a.cells.split(',') if a.cells else [f'{d}/{n}/{o}' for d in data for n in nets for o in opts]
    truth = {c: study.cell(c) for c in cells}
    if not a.cells: save_results('estimator_truth', dict(truth=truth, runs=study.lines, seeds=len(seeds)))

if __name__=='__main__': main()
