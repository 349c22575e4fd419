"Naive implementations, straight from the formulas. The tests hold the fast ones against them."
import copy, math, statistics
import torch

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
    if policy == 'authors': # Caffe's "triangular" with the authors' patch: the amplitude is divided by the number of the cycle
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
    "SGD with momentum, one LR for each step. `[(step, held-out loss, held-out accuracy)]`, the training losses, and the trained copy of the model"
    model = copy.deepcopy(model)
    bufs = [torch.zeros_like(p) for p in model.parameters()]
    rows,losses,steps = [],[],iter(batches)
    def evaluate(step):
        model.eval()
        with torch.no_grad(): preds = [(model(x), y) for x,y in valid]
        n = sum(len(y) for _,y in preds)
        rows.append((step, sum(loss_func(p, y).item()*len(y) for p,y in preds)/n, sum((p.argmax(1)==y).sum().item() for p,y in preds)/n))
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
    "From the second differences, by their median; by that of the others if most are 0 and the rest are more than a few jumps"
    d = [abs(a-2*b+c) for a,b,c in zip(y, y[1:], y[2:])]
    jumps = [v for v in d if v>0]
    if statistics.median(d)==0 and len(jumps)>8: d = jumps
    return statistics.median(d)/.6745/math.sqrt(6)
