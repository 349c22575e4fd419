"Naive implementations, straight from the formulas. The tests hold the fast ones against them."
import math

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
