"""How far from the best LR does a user end who tunes nothing?

`python benchmarks/zero_tuning.py development` or `confirmation`: trains every arm of every cell with paired seeds, a
line of `results/zero_tuning_NAME.jsonl` for each run, and goes on where it was stopped. `summary` prints regrets of
the finished cells.

Development cells may be looked at as often as one likes; they chose the method. Confirmation cells are run once, when
the method is frozen: the log's first line names the commit whose `lr_search.py` and `superconverge.py` were used, and
a log of another method is refused. Choices see training items only; the test set is scored once, after the run. All
arms of a cell and a seed run in one process on one machine, whose kind the log names.

`results/zero_tuning_designs.jsonl` is what the method was chosen by, on development cells, one or two seeds, on a
busy machine: `find`, what the finders say; `short`, held-out loss after cycles of 20 to 200 steps over a grid of LRs;
`final`, runs over it."""
import argparse, hashlib, re, subprocess, sys, time
from functools import cache
from importlib.util import find_spec
from fastai.basics import *
from fastai.callback.all import *
from superconv_fastai.all import *
from superconv_fastai.runs import RunLog, read_log, seed_all
from common import machine, results
from small import quiet_start, sgd
import itertools, math # after the star imports
from copy import copy

# ---- data: training items, test items, classes ----

@cache
def images(name):
    "Images of zero mean and unit variance, and labels"
    if name=='digits': return *digits('train'), *digits('test')
    n, n_test, size = dict(
        fashion=(3000, 2000, 14), cifar=(3000, 2000, 16), mnist=(3000, 2000, 14), cifar_full=(4000, 2000, 32)
    )[name]
    dls = image_dls(
        {'fashion': 'fashion_mnist', 'cifar': 'cifar10', 'cifar_full': 'cifar10'}.get(name, name),
        64,
        n,
        n_test,
        size=size,
        device='cpu',
    )
    (x,y),(xt,yt) = (dl.dataset.tensors for dl in dls.loaders)
    mean,std = x.float().mean((0,2,3), True),x.float().std((0,2,3), keepdim=True)
    return (x-mean)/std, y, (xt-mean)/std, yt

# ---- networks ----

def conv_net(n_in, norm='batch', n_out=10):
    "Two convolutions"
    norms = dict(batch=nn.BatchNorm2d, group=partial(nn.GroupNorm, 4), none=None)
    def block(i, o):
        return [
            nn.Conv2d(i, o, 3, padding=1, bias=norm == 'none'),
            *([] if norm == 'none' else [norms[norm](o)]),
            nn.ReLU(),
        ]
    return nn.Sequential(
        *block(n_in, 16), nn.MaxPool2d(2), *block(16, 32), nn.AdaptiveAvgPool2d(2), Flatten(), nn.Linear(128, n_out)
    )

def mlp(n_in, norm=False):
    "Two hidden layers"
    def block(i): return [nn.Linear(i, 100), *[nn.LayerNorm(100)]*norm, nn.ReLU()]
    return nn.Sequential(Flatten(), *block(n_in), *block(100), nn.Linear(100, 10))

class VisionTransformer(nn.Module):
    "Patches of 4 by 4 pixels, two encoder layers of width 64"
    def __init__(self, n_in, size):
        super().__init__()
        self.patches = nn.Conv2d(n_in, 64, 4, 4)
        self.place = nn.Parameter(.02*torch.randn(1, (size//4)**2, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0., activation='gelu', batch_first=True, norm_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Sequential(
            nn.LayerNorm(64), nn.Linear(64, 10)
        )
    def forward(self, x): return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)+self.place).mean(1))

class CharModel(nn.Module):
    "The next character, by a GRU"
    def __init__(self, n):
        super().__init__()
        self.emb,self.rnn,self.out = nn.Embedding(n, 32),nn.GRU(32, 96, batch_first=True),nn.Linear(96, n)
    def forward(self, x): return self.out(self.rnn(self.emb(x))[0])

# ---- cells: a function of the seed that makes a learner, which validates on a tenth of its items; the test set ----

class Quiet(Callback):
    "No validation in the runs: the test set is scored once, at the end"
    order = 65
    def before_validate(self):
        if not hasattr(self.learn, 'scoring'): raise CancelValidException()

def learner(train, model, opt, loss=None, metrics=accuracy, bs=64):
    "A learner on tensors"
    dls = tensor_dls(train, [t[:64] for t in train], bs, 'cpu')
    learn = Learner(
        dls, model, ifnone(loss, CrossEntropyLossFlat()), opt_func=opt, metrics=metrics, path=Path('/tmp'), cbs=Quiet()
    )
    learn.logger = noop
    return learn.remove_cb(ProgressCallback)

def image_cell(data, net, opt, n_epoch):
    "Images: `net(channels)`"
    def make(seed, items=slice(None)):
        x,y,xt,yt = images(data)
        set_seed(seed)
        return learner((x[items], y[items]), net(x), opt),(xt,yt)
    return make,n_epoch

def table_cell(opt, n_epoch):
    "statsmodels' `fair`: 6,366 answers about a marriage, was there an affair?"
    def make(seed, items=slice(None)):
        from statsmodels.datasets import fair
        from fastai.tabular.all import TabularModel
        df = fair.load_pandas().data.sample(frac=1, random_state=0)
        x, y = torch.tensor(df.drop(columns='affairs').to_numpy('float32')), torch.tensor(
            (df.affairs > 0).to_numpy('int64')
        )
        x = (x-x[:5000].mean(0))/x[:5000].std(0)
        set_seed(seed)
        class Continuous(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = TabularModel([], x.shape[1], 2, [100,50])
            def forward(self, x): return self.net(x[:,:0].long(), x)
        return learner((x[:5000][items], y[:5000][items]), Continuous(), opt),(x[5000:],y[5000:])
    return make,n_epoch

@cache
def characters(length=48):
    "The help texts that Python ships, in pieces; their hash is in the log"
    from pydoc_data.topics import topics
    text = ''.join(topics[k] for k in sorted(topics))
    names = {c:i for i,c in enumerate(sorted(set(text)))}
    ids = torch.tensor([names[c] for c in text])
    n = (len(ids)-1)//length
    return (
        ids[: n * length].view(n, length),
        ids[1 : n * length + 1].view(n, length),
        len(names),
        hashlib.sha256(text.encode()).hexdigest()[:12],
    )

def text_cell(opt, n_epoch):
    def make(seed, items=slice(None)):
        x,y,n,_ = characters()
        set_seed(seed)
        return learner((x[:3000][items], y[:3000][items]), CharModel(n), opt, metrics=[]),(x[-500:],y[-500:])
    return make,n_epoch

def series_cell(arch, n_epoch):
    "A network of tsai on digits read row by row"
    def make(seed, items=slice(None)):
        from tsai.models.all import InceptionTime, TSTPlus
        x,y,xt,yt = images('digits')
        set_seed(seed)
        net = InceptionTime(8, 10) if arch=='InceptionTime' else TSTPlus(8, 10, 8)
        return learner((x[items,0], y[items]), net, Adam),(xt[:,0],yt)
    return make,n_epoch

def transfer_cell(n_epoch):
    "A network that was trained on five classes of CIFAR-10 learns the other five from 400 images"
    def make(seed, items=slice(None)):
        x,y,xt,yt = images('cifar')
        set_seed(seed)
        net = conv_net(3, 'batch', 5)
        old = learner((x[y<5], y[y<5]), net, Adam)
        old.fit_one_cycle(8, .01)
        net[-1] = nn.Linear(128, 5)
        new,test = (y>=5).nonzero()[:400,0],yt>=5
        return learner((x[new][items], y[new][items]-5), net, Adam, bs=16),(xt[test],yt[test]-5)
    return make,n_epoch

adamw = partial(OptimWrapper, opt=torch.optim.AdamW)
def bn(x): return conv_net(x.shape[1])
def plain(x): return conv_net(x.shape[1], 'none')
def dense(x): return mlp(x[0].numel())
def res(x): return resnet8(8, x.shape[1], stride=2)

DEVELOPMENT = {
    'digits bn adam 3': image_cell('digits', bn, Adam, 3),
    'digits bn sgd 20': image_cell('digits', bn, sgd, 20),
    'digits plain adam 20': image_cell('digits', plain, Adam, 20),
    'digits plain sgd 20': image_cell('digits', plain, sgd, 20),
    'digits mlp adam 20': image_cell('digits', dense, Adam, 20),
    'digits mlp sgd 5': image_cell('digits', dense, sgd, 5),
    'fashion res adam 7': image_cell('fashion', res, Adam, 7),
    'fashion res sgd 2': image_cell('fashion', res, sgd, 2),
    'fashion plain sgd 7': image_cell('fashion', plain, sgd, 7),
    'fashion bn adam 7': image_cell('fashion', bn, Adam, 7),
    'cifar res sgd 7': image_cell('cifar', res, sgd, 7),
    'cifar plain adam 7': image_cell('cifar', plain, Adam, 7),
}
CONFIRMATION = {
    'mnist bn sgd 7': image_cell('mnist', bn, sgd, 7),
    'cifar 32 res adam 5 (near)': image_cell('cifar_full', res, Adam, 5),
    'fashion group norm adam 7': image_cell('fashion', lambda x: conv_net(1, 'group'), Adam, 7),
    'mnist layer norm sgd 7': image_cell('mnist', lambda x: mlp(x[0].numel(), True), sgd, 7),
    'cifar transformer adam 7': image_cell('cifar', lambda x: VisionTransformer(3, 16), Adam, 7),
    'fair tabular adam 4': table_cell(Adam, 4),
    'topics characters adam 7': text_cell(Adam, 7),
    'mnist bn adamw 7': image_cell('mnist', bn, adamw, 7),
    'fashion bn sgd without momentum 7': image_cell('fashion', bn, SGD, 7),
    'digits InceptionTime 20': series_cell('InceptionTime', 20),
    'digits TSTPlus 20': series_cell('TSTPlus', 20),
    'cifar transfer adam 12': transfer_cell(12)}
NEEDS = {'fair tabular adam 4':'statsmodels', 'digits InceptionTime 20':'tsai', 'digits TSTPlus 20':'tsai'}
HALVES = dict(development=(DEVELOPMENT, 3, 7), confirmation=(CONFIRMATION, 5, 9)) # cells, seeds, LRs of the grid

def is_sgd(cell): return 'sgd' in cell
def usual(cell): return 1. if 'without momentum' in cell else .1 if is_sgd(cell) else .01

# ---- arms: what a run gives ----

def score(learn, test):
    "Loss and accuracy on the test set, once"
    dl = learn.dls.valid.new(torch.utils.data.TensorDataset(*test), shuffle=False)
    dl.n = len(test[1])
    learn.scoring = True
    loss,*metrics = map(float, learn.validate(dl=dl))
    del learn.scoring
    return dict(loss=loss if math.isfinite(loss) else None, accuracy=metrics[0] if metrics else None)

def trained(make, seed, fit, items=slice(None)):
    "A run: what `fit(learn)` returns, the scores, seconds, steps"
    learn,test = make(seed, items)
    seed_all(seed, learn.dls)
    steps = Steps()
    learn.add_cb(steps)
    start = time.perf_counter()
    try: told = fit(learn) or {}
    except Diverged as e: told = dict(failed=str(e)[:200])
    seconds = time.perf_counter()-start
    return dict(**score(learn, test), steps=steps.taken(), seconds=round(seconds, 2), **told)

class Steps(Callback):
    "Optimizer steps of the run, restarts included. It counts in a closure, which nothing puts back"
    order = 66
    def __init__(self):
        n = itertools.count()
        self.add,self.taken = lambda: next(n),lambda: next(copy(n))
    def after_step(self): self.add()

def cycle(lr, n_epoch): return lambda learn: learn.fit_one_cycle(n_epoch, lr)
def superconv(lr, n_epoch): return lambda learn: learn.fit_superconv(n_epoch, lr)

def converge(n_epoch):
    def fit(learn):
        r = learn.superconverge(n_epoch)
        return dict(
            lr=r.lr_max,
            search=round(r.search_steps, 1),
            search_seconds=round(r.search_seconds, 2),
            restarts=len(r.restarts),
        )
    return fit

def choices(make, seed):
    "What fastai's `lr_find` and this package's two finders choose, on training items alone"
    learn,_ = make(seed)
    seed_all(seed, learn.dls)
    n = len(learn.dls.train_ds)
    names = valley,steep,minimum,slide
    try: lrs = {f.__name__:float(v) for f,v in zip(names, learn.lr_find(suggest_funcs=names, show_plot=False))}
    except Exception as e: lrs = {f.__name__:None for f in names} # a suggestion without an answer takes all with it
    learn.opt = None
    lrs['probe'] = learn.curvature_lr_find().lr
    x,y = learn.dls.train_ds.tensors
    held = max(100, n//10)
    part,_ = make(seed, slice(n-held))
    part.dls.valid.dataset = torch.utils.data.TensorDataset(x[n-held:], y[n-held:])
    part.dls.valid.n = held
    part.remove_cb(Quiet)
    seed_all(seed, part.dls)
    lrs['range test'] = part.lr_range_test(.1 if is_adaptive(part) else 3., show_plot=False).lr_max
    return {k:v for k,v in lrs.items()}

def is_adaptive(learn):
    from superconv_fastai.optim import is_adaptive as adaptive, next_optimizer
    return adaptive(next_optimizer(learn)[0])

def grid(cell, n): return [float(f'{usual(cell)*10**(k/2):.3g}') for k in range(-(n//2)+1, n-n//2+1)][:n]

def arms(cell, make, n_epoch, seed, n_grid, done):
    "`(name, function of the seed that runs it)` of each arm; those that depend on others' results ask `done`"
    yield 'superconverge', lambda: trained(make, seed, converge(n_epoch))
    yield 'choices', lambda: dict(lrs=choices(make, seed))
    yield 'learn.lr', lambda: trained(make, seed, cycle(1e-3, n_epoch))
    lrs = done('choices')['lrs']
    for name in ('valley','steep','minimum','slide'):
        if lrs[name]: yield name, lambda lr=lrs[name]: trained(make, seed, cycle(lr, n_epoch))
    for name in ('probe','range test'):
        if lrs[name]: yield name, lambda lr=lrs[name]: trained(make, seed, superconv(lr, n_epoch))
    for lr in grid(cell, n_grid): yield f'fit_one_cycle {lr:g}', lambda lr=lr: trained(make, seed, cycle(lr, n_epoch))
    tried = grid(cell, n_grid)
    while True: # the best of the grid is to be inside of it
        best = min(tried, key=lambda lr: worst_first(done(f'fit_one_cycle {lr:g}')))
        step = {min(tried):10**-.5, max(tried):10**.5}.get(best)
        if step is None or len(tried)>n_grid+4: break
        tried.append(lr := float(f'{best*step:.3g}'))
        yield f'fit_one_cycle {lr:g}', lambda lr=lr: trained(make, seed, cycle(lr, n_epoch))
    for lr in (best*10**-.5, best, best*10**.5):
        lr = float(f'{lr:.3g}')
        yield f'fit_superconv {lr:g}', lambda lr=lr: trained(make, seed, superconv(lr, n_epoch))
    for name in ('valley','steep'): # how many steps the documented workflow needs to get as far
        if lrs[name] and seed<3:
            for k in (2,4,8): yield f'{name} x{k}', lambda lr=lrs[name],k=k: trained(make, seed, cycle(lr, k*n_epoch))

def worst_first(run):
    return (-(run['accuracy'] or 0) if run['accuracy'] is not None else 0., ifnone(run['loss'], math.inf))

# ---- the study ----

def method():
    "The commit that the sources of the method are those of"
    files = ['superconv_fastai/lr_search.py', 'superconv_fastai/superconverge.py']
    root = results.parent.parent
    def git(*args):
        return subprocess.run(
            ['git', '-C', str(root), *args], capture_output=True, text=True, check=True
        ).stdout.strip()
    if git('status', '--porcelain', '--', *files):
        sys.exit(f"commit {' and '.join(files)} first: the log names the commit of the method")
    return git('log', '-1', '--format=%H', '--', *files)

def study(half):
    quiet_start()
    cells,n_seeds,n_grid = HALVES[half]
    info = dict(machine=machine(), topics=characters()[3], seeds=n_seeds)
    with RunLog('zero tuning', results/f'zero_tuning_{half}.jsonl', dict(half=half, method=method()), info) as log:
        for seed in range(n_seeds):
            for cell,(make,n_epoch) in cells.items():
                if cell in NEEDS and not find_spec(NEEDS[cell]):
                    print(f'{cell}: left out, {NEEDS[cell]} is not installed')
                    continue
                begun = time.perf_counter()
                for name,run in arms(cell, make, n_epoch, seed, n_grid, lambda arm: log.runs[cell,arm,seed]):
                    if (cell,name,seed) not in log.runs: log.add((cell, name, seed), run())
                print(f'{cell}, seed {seed}: {time.perf_counter()-begun:.0f} s', flush=True)

def complete(runs):
    "Cells and seeds whose last arm is there"
    return sorted({(c,s) for c,a,s in runs if a.startswith('fit_superconv')})

def summary(half):
    """Regret of each arm against the best LR of the other seeds, points of accuracy (percent of the gain in loss where
    there is no accuracy)"""
    head,runs,_ = read_log('zero tuning', results/f'zero_tuning_{half}.jsonl')
    print('method', head['of']['method'][:12], 'on', head['info']['machine']['cpu'], len(runs), 'runs')
    rows,whole = [],complete(runs)
    def value(c, a, s):
        r = runs.get((c,a,s))
        if r is None: return math.nan
        return 100*r['accuracy'] if r['accuracy'] is not None else -100*ifnone(r['loss'], 10.)
    for c,s in whole:
        seeds = [o for d,o in whole if d==c]
        fits = sorted({a for d,a,_ in runs if d==c and a.startswith('fit_')})
        others = [o for o in seeds if o!=s] or seeds
        mean = {a:np.mean([value(c, a, o) for o in others]) for a in fits}
        best = max((a for a in fits if mean[a]==mean[a]), key=mean.get)
        oracle = value(c, best, s)
        if not math.isfinite(oracle): oracle = max(value(c, a, s) for a in fits if math.isfinite(value(c, a, s)))
        rows += [
            dict(cell=c, seed=s, arm=a, regret=oracle - value(c, a, s))
            for a in ('superconverge', 'learn.lr', 'valley', 'steep', 'minimum', 'slide', 'probe', 'range test')
            if (c, a, s) in runs
        ]
    if not rows: return print('no cell is complete yet')
    df = pd.DataFrame(rows)
    print(
        df.groupby('arm')
        .regret.agg(['mean', lambda v: v.quantile(0.9), 'max', 'count'])
        .set_axis(['mean', '90 %', 'worst', 'runs'], axis=1)
        .round(2)
    )
    print(df[df.arm=='superconverge'].groupby('cell').regret.agg(['mean','max','count']).round(2))

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('what', choices=[*HALVES, 'summary'])
    p.add_argument('--half', choices=list(HALVES), default='development', help='of which half `summary` tells')
    a = p.parse_args()
    if a.what=='summary': summary(a.half)
    else: study(a.what)
