"Naive implementations, straight from the formulas. The tests hold the fast ones against them."
from fastai.basics import *
from itertools import product
from scipy import stats
import copy, math, random, statistics # after the star import, which brings functions of these names

# ---- schedules ----

def one_cycle(i, n, lr_max, div, div_final, s, policy, tail=True):
    "The LR at step `i < n` for a run with a whole cycle in it: `2*s <= n-1` when there is a tail, else `2*s == n`"
    lo,end = lr_max/div, lr_max/div/div_final
    if policy == 'authors': # lnsmith54/hyperParam1's logs
        if i <= s: return lo + (lr_max-lo)*i/s
        return lr_max*(2*s-i)/s if i < 2*s else end
    leg = (lambda a,b,t: a+(b-a)*t) if policy == 'paper' else (lambda a,b,t: b+(a-b)*(1+math.cos(math.pi*t))/2)
    if i <= s: return leg(lo, lr_max, i/s)
    if i <= 2*s and not (tail and i == n-1): return leg(lr_max, lo, (i-s)/s)
    return end if i == n-1 else leg(lo, end, (i-2*s)/(n-1-2*s))

def momentum(i, n, moms, s, policy):
    "The momentum at step `i`"
    first,low,last = moms
    # Caffe's "triangular" with the authors' patch: the amplitude is divided by the number of the cycle
    if policy == 'authors':
        cycle = i//(2*s) + 1
        x = (i - (2*cycle-1)*s)/s
        base = first if i <= s else last
        return base - (base-low)*(1-abs(x))/cycle
    leg = (lambda a,b,t: a+(b-a)*t) if policy == 'paper' else (lambda a,b,t: b+(a-b)*(1+math.cos(math.pi*t))/2)
    if i <= s: return leg(first, low, i/s)
    return leg(low, last, (i-s)/s) if i <= 2*s else last

def triangular(i, base, top, s):
    "Caffe's CLR policy 'triangular' (arXiv 1506.01186), first cycle"
    x = (i-s)/s
    return base + (top-base)*max(0, 1-abs(x))

def optax_onecycle(i, n, peak, pct_start, pct_final, div, div_final):
    "The formula of optax's `linear_onecycle_schedule`: three lines between 0, pct_start*n, pct_final*n and n"
    xs = [0, int(pct_start*n), int(pct_final*n), n]
    ys = [peak/div, peak, peak/div, peak/(div*div_final)]
    for a,b,u,v in zip(xs, xs[1:], ys, ys[1:]):
        if i < b: return u + (v-u)*(i-a)/(b-a)
    return ys[-1]

def places(n_epoch, batch_sizes, n_acc):
    "The optimizer step of each batch, by counting items as `GradientAccumulation` does"
    res,steps,items = [],0,0
    for _ in range(n_epoch):
        res.append([])
        for bs in batch_sizes:
            res[-1].append(steps)
            items += bs
            if items >= n_acc: steps,items = steps+1,0
    return res,steps

# ---- range test ----

def sweep(model, loss_func, batches, valid, lrs, mom=0., due=(), wd=0.):
    """SGD with momentum, one LR for each step. `[(step, held-out loss, held-out accuracy)]`, the training losses, and
    the trained copy of the model"""
    model = copy.deepcopy(model)
    bufs = [torch.zeros_like(p) for p in model.parameters()]
    rows,losses,steps = [],[],iter(batches)
    def evaluate(step):
        model.eval()
        with torch.no_grad(): preds = [(model(x), y) for x,y in valid]
        n = sum(len(y) for _,y in preds)
        rows.append((step, sum(loss_func(p, y).item()*len(y) for p,y in preds)/n,
                     sum((p.argmax(1)==y).sum().item() for p,y in preds)/n))
        model.train()
    evaluate(0)
    for step,lr in enumerate(lrs, 1):
        x,y = next(steps)
        loss = loss_func(model(x), y)
        for p in model.parameters(): p.grad = None
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for p,b in zip(model.parameters(), bufs):
                if p.ndim > 1: p.mul_(1-lr*wd) # not for biases and BatchNorm
                b.mul_(mom).add_(p.grad)
                p.sub_(lr*b)
        if step in due: evaluate(step)
    return rows,losses,model

def segment(y):
    "Largest sum of any contiguous segment"
    return max(sum(y[a:b]) for a in range(len(y)) for b in range(a+1, len(y)+1))

def reached(y, noise):
    "Largest lower bound `mean - noise/sqrt(m)` of any contiguous segment of `m` points"
    return max(sum(y[a:b])/(b-a) - noise/math.sqrt(b-a) for a in range(len(y)) for b in range(a+1, len(y)+1))

def noise(y):
    """From the second differences, by their median; by that of the others if most are 0 and the rest are more than
    a few jumps"""
    d = [abs(a-2*b+c) for a,b,c in zip(y, y[1:], y[2:])]
    jumps = [v for v in d if v>0]
    if statistics.median(d)==0 and len(jumps)>8: d = jumps
    return statistics.median(d)/.6745/math.sqrt(6)

# ---- curvature: whole snapshots around every call of the optimizer, plain loops, float64 ----

class Snapshots(Callback):
    """Wraps the optimizer's own `step`: all weights before and after each real step, with LR and momentum of every
    group. Independent of callback events"""
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
            self._steps.append((before, self._snap(), [float(h['lr']) for h in hs],
                                [float(h.get('mom', 0.)) for h in hs]))
        opt.step = step

def differences(steps, lrs): return [[(b-a)/lr if lr else None for a,b in zip(x, y)] for (x,y),lr in zip(steps, lrs)]

def pair_sums(first, second):
    """Sums of |d_i| and of |d_i/lr_i - d_{i+1}/lr_{i+1}|, and s.y, over all groups whose LR is not 0; None when
    there is none"""
    num = den = dot = 0.
    some = False
    for x0,x1,lr0,y0,y1,lr1 in zip(first[0], first[1], first[2], second[0], second[1], second[2]):
        if lr0==0 or lr1==0: continue
        some = True
        for a,b,c,d in zip(x0, x1, y0, y1):
            y = (b-a)/lr0 - (d-c)/lr1
            num += (b-a).abs().sum().item()
            den += y.abs().sum().item()
            dot += ((b-a)*y).sum().item()
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
    """What the authors' L2TermComputation scripts compute, written anew: LR(i) in front, all blobs, average started at
    0.1"""
    res,avg = [],.1
    for i in range(len(snapshots)-2):
        top = sum((b-a).abs().sum().item() for a,b in zip(snapshots[i], snapshots[i+1]))
        bot = sum((2*b-a-c).abs().sum().item() for a,b,c in zip(snapshots[i], snapshots[i+1], snapshots[i+2]))
        est = lrs[i]*top/bot
        avg = alpha*est + (1-alpha)*avg
        res.append([i+1, est, avg])
    return res

# ---- comparison ----

def train(make_learner, seed, lrs, mom):
    "SGD with momentum by hand, an LR for each step: held-out loss and accuracy, mean training loss, after each epoch"
    def reseed():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
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
            rows.append((torch.nn.functional.cross_entropy(out, y).item(), (out.argmax(1)==y).float().mean().item(),
                         total/n))
    return rows

def paired_t(a, b):
    "scipy's own interval for paired samples"
    ci = stats.ttest_rel(a, b).confidence_interval(.95)
    return ci.low,ci.high

def median_interval(x):
    """The narrowest pair of order statistics, equally far from both ends, that holds the median of n values in 95 % of
    all cases. By counting all of them"""
    x,n = sorted(x),len(x)
    # the true median lies between the k-th smallest and the k-th largest unless fewer than k values lie on one side
    # of it
    for k in range(n//2, 0, -1):
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

# ---- regularization balance ----

def shrink(make_opt, param, n):
    "The weight after each of `n` steps with zero gradient"
    ws = []
    opt = make_opt([param])
    for _ in range(n):
        param.grad = param.new_zeros(param.shape)
        opt.step()
        ws.append(param.item())
    return ws

def heavy_ball(lrs, wd, moms):
    "A weight with no gradient but its L2 term: v = m v + wd w; w = w - lr v"
    w,v = 1.,0.
    for lr,m in zip(lrs, moms):
        v = m*v + wd*w
        w -= lr*v
    return w

def tukey(rows, critical):
    """Tukey's honest significant difference for rows whose columns are paired; `critical(c, df)` is the studentized
    range's"""
    c,s = len(rows),len(rows[0])
    row = [sum(r)/s for r in rows]
    col = [sum(r[j] for r in rows)/c for j in range(s)]
    all_ = sum(row)/c
    ss = sum((rows[i][j]-row[i]-col[j]+all_)**2 for i in range(c) for j in range(s))
    df = (c-1)*(s-1)
    return critical(c, df)*math.sqrt(ss/df)/math.sqrt(s)

def race(x, critical):
    """Rows of `x` that may have the smallest mean, when after each seed only those that may have it go on; the
    number of rows stays that of the start"""
    n,live = len(x),list(range(len(x)))
    for s in range(2, len(x[0])+1):
        while len(live) > 1:
            rows = [list(x[i][:s]) for i in live]
            means,margin = [sum(r)/s for r in rows],tukey(rows, lambda c,df: critical(n, df))
            new = [i for i,m in zip(live, means) if m <= min(means)+margin]
            if new == live: break
            live = new
    return live

def search(make_learner, fit, wds, seeds):
    "Every weight decay with every seed, each on a fresh learner: mean held-out losses"
    return {wd: sum(fit(make_learner(), wd, s) for s in range(seeds))/seeds for wd in wds}

# ---- data ----

def crop_mirror(x, tops, lefts, mirrored, pad):
    "One image after the other: padded, cut out, turned round"
    res = []
    for img,top,left,mirror in zip(x, tops, lefts, mirrored):
        img = np.pad(np.asarray(img), ((0,0),(pad,pad),(pad,pad)),
                     mode='reflect')[:, top:top+x.shape[2], left:left+x.shape[3]]
        res.append(img[:,:,::-1] if mirror else img)
    return np.stack(res)
